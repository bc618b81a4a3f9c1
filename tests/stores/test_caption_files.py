"""Dense captions of a submission and of a folder, and what is no such file."""

import json

import pytest

from vlpipe.stores.caption_files import EventText, read_event_texts
from vlpipe.stores.errors import AnnotationError


def test_a_submission_keeps_its_order(tmp_path):
    events = [{"sentence": "b", "timestamp": [3, 4.5]}, {"sentence": "a", "timestamp": [0, 9]}]
    path = tmp_path / "told.json"
    path.write_text(json.dumps({"version": "1", "results": {"v": events, "w": []}}))
    found = read_event_texts(path)
    assert found == {"v": (EventText(3, 4.5, "b"), EventText(0, 9, "a")), "w": ()}


def test_a_folder_gives_the_most_confident_first(tmp_path):
    events = [{"start_s": n, "end_s": n + 1.5, "sentence": text, "confidence": value}
              for n, (text, value) in enumerate((("low", 0.1), ("high", 0.9)))]  # fmt: skip
    (tmp_path / "v.json").write_text(json.dumps({"id": "v", "video": None, "events": events}))
    found = read_event_texts(tmp_path)
    assert found == {"v": (EventText(1, 2.5, "high"), EventText(0, 1.5, "low"))}


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{}", "results: Field required"), ("[", "Invalid JSON"),
     ('{"results": {"v": [{"sentence": "a", "timestamp": [1]}]}}', "results, v, 0, timestamp")],
)  # fmt: skip
def test_another_file_is_named(tmp_path, content, reason):
    path = tmp_path / "told.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=r"told\.json") as caught:
        read_event_texts(path)
    assert reason in caught.value.message
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_event_texts(tmp_path / "gone.json")
    path.unlink()
    with pytest.raises(AnnotationError, match=r"holds no VIDEO\.json"):
        read_event_texts(tmp_path)
