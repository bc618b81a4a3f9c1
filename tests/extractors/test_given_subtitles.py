"""Words from files of subtitles: which file, which words, when."""

import made_media
import pytest

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.configuration import configure_extractors
from vlpipe.extractors.errors import MediaError
from vlpipe.extractors.speech.subtitle_files import find_subtitles, read_cues
from vlpipe.extractors.speech.subtitle_words import words_of
from vlpipe.stores.errors import UsageError
from vlpipe.stores.text_rows import texts_of_rows

SOUNDS = ("Music", "Applause")

ROLLING = """WEBVTT
Kind: captions

00:00:00.160 --> 00:00:02.389 align:start position:0%
\u0020
hello<00:00:00.480><c> everyone</c><00:00:00.880><c> welcome</c>

00:00:02.389 --> 00:00:02.399 align:start position:0%
hello everyone welcome
\u0020

00:00:02.399 --> 00:00:04.950 align:start position:0%
hello everyone welcome
to<00:00:02.560><c> my</c><00:00:02.800><c> show</c>

00:00:04.950 --> 00:00:04.960 align:start position:0%
to my show
\u0020

00:00:04.960 --> 00:00:06.950 align:start position:0%
to my show
[Music]
"""

PLAIN = """1
00:00:01,000 --> 00:00:19,000
<font color="#E5E5E5">you</font><font color="#CCCCCC"> better</font>

2
00:00:05,000 --> 00:00:07,000
[Applause] salt &amp; pepper
42

3
01:40:00,000 --> 01:40:01,000
late
"""


def told(tmp_path, text, name="a.srt", end_s=1e9):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    words = words_of(read_cues(path, "utf-8"), SOUNDS, end_s)
    return [(w.text, round(w.start_s, 3), round(w.end_s, 3)) for w in words]


def test_rolling_lines_count_once_and_keep_the_times_of_their_words(tmp_path):
    assert told(tmp_path, ROLLING, "a.vtt") == [
        ("hello", 0.16, 0.48), ("everyone", 0.48, 0.88), ("welcome", 0.88, 2.389),
        ("to", 2.399, 2.56), ("my", 2.56, 2.8), ("show", 2.8, 4.95),
    ]  # fmt: skip


def test_tags_and_sounds_go_overlaps_are_cut_and_words_share_their_segment(tmp_path):
    # "you" has 4 of the 11 letters and gaps of its segment, which ends where the next begins.
    words = told(tmp_path, PLAIN, end_s=5000)
    assert words[:2] == [("you", 1.0, round(1 + 4 * 4 / 11, 3)), ("better", 2.455, 5.0)]
    assert [w for w, *_ in words[2:]] == ["salt", "&", "pepper", "42"]
    assert words[-1][2] == 7.0


def test_what_begins_after_the_file_has_ended_is_dropped(tmp_path):
    assert "late" in [w for w, *_ in told(tmp_path, PLAIN)]
    assert "late" not in [w for w, *_ in told(tmp_path, PLAIN, end_s=6000)]


def test_a_line_that_somebody_says_twice_counts_twice(tmp_path):
    said = ["no!", "no!", "why", "not", "so", "it", "is", "then"]
    cues = "".join(
        f"{n}\n00:00:0{n},000 --> 00:00:0{n + 1},000\n{text}\n\n" for n, text in enumerate(said)
    )
    assert [w for w, *_ in told(tmp_path, cues)] == said


@pytest.mark.parametrize(
    ("names", "language", "wanted"),
    [
        (["a.srt"], None, "a.srt"),
        (["a.en.vtt"], None, "a.en.vtt"),
        (["a.srt", "a.vtt", "a.de.vtt"], None, "a.vtt"),
        (["a.de.vtt", "a.en-GB.vtt"], "en", "a.en-GB.vtt"),
        (["a.de.vtt"], "en", None),
        (["a.srt", "a.de.vtt"], "en", "a.srt"),
        (["b.srt", "a.txt"], None, None),
    ],
)
def test_which_file_is_taken(tmp_path, names, language, wanted):
    for name in names:
        (tmp_path / name).write_text("")
    found = find_subtitles(tmp_path, "elsewhere/a.mp4", language)
    assert (found and found.name) == wanted


def test_files_of_activitynet_may_lack_its_prefix(tmp_path):
    (tmp_path / "QOlSCBRmfWY.en.srt").write_text("")
    assert find_subtitles(tmp_path, "v_QOlSCBRmfWY.mp4", None).name == "QOlSCBRmfWY.en.srt"


def test_several_languages_and_damaged_files_are_named(tmp_path):
    for name in ("a.de.vtt", "a.fr.vtt"):
        (tmp_path / name).write_text("WEBVTT")
    with pytest.raises(MediaError, match="several languages: de, fr") as caught:
        find_subtitles(tmp_path, "a.mp4", None)
    assert "language=de" in caught.value.hint
    (tmp_path / "b.vtt").write_text("no subtitles at all")
    with pytest.raises(MediaError, match=r"b\.vtt cannot be read"):
        read_cues(tmp_path / "b.vtt", "utf-8")
    (tmp_path / "c.srt").write_bytes(
        "1\n00:00:01,000 --> 00:00:02,000\ncaf\u00e9\n".encode("cp1252")
    )
    with pytest.raises(MediaError, match=r"c\.srt is not utf-8") as caught:
        read_cues(tmp_path / "c.srt", "utf-8")
    assert "cp1252" in caught.value.hint
    assert read_cues(tmp_path / "c.srt", "cp1252")[0].lines == ("caf\u00e9",)
    (tmp_path / "d.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nh\u00e9\n", encoding="utf-16"
    )
    assert read_cues(tmp_path / "d.srt", "utf-8")[0].lines == ("h\u00e9",)


def test_changed_subtitles_make_a_new_feature(tmp_path):
    with pytest.raises(UsageError, match="holds no file"):
        configure_extractor("given_subtitles", folder=tmp_path)

    def generation():
        spec = configure_extractor("given_subtitles", folder=tmp_path)
        return spec.definitions()[0].generation

    (tmp_path / "a.srt").write_text(PLAIN)
    before = generation()
    assert generation() == before
    (tmp_path / "a.srt").write_text(PLAIN.replace("pepper", "sugar"))
    assert generation() != before


def test_a_file_has_the_words_beside_it_with_and_without_sound(tmp_path):
    made_media.make_audio(tmp_path / "sound.wav", seconds=6.0)
    made_media.make_video(tmp_path / "silent.mp4", seconds=1.0)
    (tmp_path / "sound.en.srt").write_text(PLAIN)
    (tmp_path / "silent.srt").write_text("1\n00:00:00,000 --> 00:00:00,900\nunheard words\n")
    extractor = create_extractor("given_subtitles")
    made = extractor.extract(tmp_path / "sound.wav")["speech_words"]
    assert texts_of_rows(made.rows) == ["you", "better", "salt", "&", "pepper", "42"]
    assert (made.rows.dtype, made.spans[0].tolist()) == (
        "uint8",
        [1.0, pytest.approx(1 + 4 * 4 / 11)],
    )
    made = extractor.extract(tmp_path / "silent.mp4")["speech_words"]
    assert texts_of_rows(made.rows) == ["unheard", "words"]


def test_two_makers_of_one_feature_are_refused_together():
    with pytest.raises(UsageError, match="both make the feature speech_words"):
        configure_extractors(
            ["given_subtitles", "whisper"], weights={"whisper": "untrained"}, settings={}
        )
