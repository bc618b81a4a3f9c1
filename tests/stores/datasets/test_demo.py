"""The demo dataset: its files, and that its answers can be seen and heard."""

import collections
import dataclasses
import hashlib
import json
import re

import av
import numpy as np
import pytest
from PIL import Image, ImageChops

from vlpipe.stores.datasets import DemoDataset, make_demo, open_dataset
from vlpipe.stores.datasets._demo_drawing import Painter
from vlpipe.stores.datasets._demo_generator import GENERATOR_VERSION, DemoSize, plan_demo
from vlpipe.stores.datasets._demo_language import NUMBERS
from vlpipe.stores.datasets._demo_movies import STORY_FPS
from vlpipe.stores.datasets._demo_scene import ACTIONS
from vlpipe.stores.datasets._demo_script import VIDEO_SIZE
from vlpipe.stores.datasets._demo_truth import Said, said_in
from vlpipe.stores.datasets._questions import TASKS
from vlpipe.stores.errors import EnvironmentLacks, UsageError

SIZE = {"clips": 12, "videos": 7, "stories": 3}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp("demo") / "root", **SIZE, seed=3)


@pytest.fixture(scope="module")
def scenes(demo):
    return json.loads((demo.root / "scenes.json").read_text())


def gif_frames(path):
    """RGB frames and their delays in ms."""
    frames, delays = [], []
    with Image.open(path) as gif:
        for number in range(gif.n_frames):
            gif.seek(number)
            frames.append(np.asarray(gif.convert("RGB"), dtype=np.int16))
            delays.append(gif.info["duration"])
    return np.stack(frames), delays


def mp4_frames(path):
    with av.open(path) as media:
        return [frame.to_ndarray(format="rgb24") for frame in media.decode(video=0)]


def named(scene, text):
    """The figure of a scene that a question names."""
    (number,) = [
        number
        for number, figure in enumerate(scene["figures"])
        if f"{figure['color']} {figure['shape']}" in text
    ]
    return number


def overlap(first, second):
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    width, height = (
        max(0, min(first[axis + 2], second[axis + 2]) - max(first[axis], second[axis]))
        for axis in (0, 1)
    )
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


def acts_of(scene, number):
    acts = [act for act in scene["acts"] if act["figure"] == number]
    return sorted(acts, key=lambda act: act["start_s"])


def test_it_is_complete_and_can_be_opened_by_name(demo):
    check = open_dataset("demo", demo.root).check()
    assert check.is_complete, check
    assert check.media_named == check.media_present == 12 + 7 + 15
    assert check.unnamed == ()
    assert all(table.rows is not None and table.published_rows for table in check.tables)


def test_the_gifs_are_a_copy_of_tgif_too(demo):
    tgif = open_dataset("tgif", demo.root)
    videos = tgif.videos()
    assert len(videos) == 12
    assert all(video.path.suffix == ".gif" for video in videos)
    for task in TASKS:
        train, test = (tgif.questions(task, split) for split in ("train", "test"))
        assert train
        assert test
        assert sorted(tgif.questions(task), key=str) == sorted(train + test, key=str)
        assert {question.vid_id for question in train}.isdisjoint(q.vid_id for q in test)


def test_the_tables_have_the_publishers_form(demo):
    for path in (demo.root / "dataset").iterdir():
        content = path.read_bytes()
        assert content.count(b"\n") == content.count(b"\r\n") > 1
        assert content.startswith(b"gif_name\tquestion\t")
    keys = collections.defaultdict(set)
    for task in TASKS:
        for question in demo.questions(task):
            keys[question.key].add(question.gif_name)
    assert all(len(names) == 1 for names in keys.values())


def test_splits_share_no_clip(demo):
    of_split = {split: {video.id for video in demo.videos(split)} for split in demo.splits}
    assert of_split["train"].isdisjoint(of_split["test"] | of_split["val"])
    assert of_split["test"].isdisjoint(of_split["val"])
    assert all(of_split.values())
    assert {video.id: video.split for video in demo.videos()} == {
        name: split for split, names in of_split.items() for name in names
    }
    told = {
        split: {pair.video_id for pair in demo.sentence_pairs(split)} for split in ("train", "test")
    }
    assert told["train"] <= of_split["train"]
    assert told["test"] <= of_split["test"] | of_split["val"]
    movies = [{story.movie for story in demo.stories(split)} for split in demo.splits]
    assert len(set.union(*movies)) == sum(map(len, movies))
    assert {captions.video_id for captions in demo.captions("val_1")} == {
        captions.video_id for captions in demo.captions("val_2")
    }


def test_count_answers_are_what_happens(demo, scenes):
    for question in demo.questions("count"):
        scene = scenes[question.gif_name]
        number = named(scene, question.question)
        action = re.fullmatch(
            rf"How many times does the \w+ \w+ ({'|'.join(ACTIONS)}) \?", question.question
        )[1]
        times = [act["times"] for act in acts_of(scene, number) if act["action"] == action]
        assert question.answer == (times[0] if times else 0)
        assert question.answer != 1


def test_choices_are_what_happens(demo, scenes):
    for question in demo.questions("action") + demo.questions("transition"):
        assert len(set(question.choices)) == 5
        assert set(question.choices) <= set(ACTIONS)
    for question in demo.questions("action"):
        scene = scenes[question.gif_name]
        (act,) = acts_of(scene, named(scene, question.question))
        assert question.choices[question.answer] == act["action"]
        assert f"do {act['times']}" in question.question
    for question in demo.questions("transition"):
        scene = scenes[question.gif_name]
        done = [act["action"] for act in acts_of(scene, named(scene, question.question))]
        word, told = re.search(r" (after|before) (.+) \?", question.question).groups()
        place = done.index(told) + (1 if word == "after" else -1)
        assert question.choices[question.answer] == done[place]


def test_frame_answers_are_what_is_there(demo, scenes):
    kinds = set()
    for question in demo.questions("frameqa"):
        scene = scenes[question.gif_name]
        kinds.add(question.kind)
        if question.kind == 1:
            assert question.answer == NUMBERS[len(scene["figures"])]
        elif question.kind == 3:
            assert question.answer == scene["place"]
        else:
            field = ("shape", None, "color")[question.kind]
            other = "color" if field == "shape" else "shape"
            (figure,) = [f for f in scene["figures"] if f" {f[other]} " in question.question]
            assert question.answer == figure[field]
    assert kinds == {0, 1, 2, 3}


def test_gifs_have_irregular_delays_and_keep_every_frame(demo, scenes):
    for video in demo.videos():
        if video.path.suffix != ".gif":
            continue
        frames, delays = gif_frames(video.path)
        assert 20 <= len(frames) <= 60
        assert 6.0 <= 1000 * len(delays) / sum(delays) <= 17
        assert len(set(delays)) > 1
        assert sum(delays) / 1000 == pytest.approx(scenes[video.id]["duration_s"])
        assert frames.shape[1:] in ((72, 96, 3), (84, 112, 3), (96, 128, 3))


def test_repetitions_can_be_counted_in_the_pixels(demo, scenes):
    counted = 0
    for question in demo.questions("count"):
        scene = scenes[question.gif_name]
        if question.answer == 0 or len(scene["acts"]) != 1:
            continue
        frames, _ = gif_frames(demo.root / "gifs" / f"{question.gif_name}.gif")
        changed = (np.abs(frames - frames[0]).sum(3) > 60).sum((1, 2))
        is_active = changed > 0.25 * changed.max()
        starts = np.count_nonzero(is_active[1:] & ~is_active[:-1])
        assert starts == question.answer, question
        counted += 1
    assert counted >= 4


def test_repetitions_can_be_counted_in_the_sound(demo, scenes):
    with_sound, without, in_part = 0, 0, 0
    for video in demo.videos():
        if video.path.parent.name != "videos":
            continue
        with av.open(video.path) as media:
            if not media.streams.audio:
                without += 1
                continue
            parts = [frame.to_ndarray()[0] for frame in media.decode(audio=0)]
            rate_hz = media.streams.audio[0].rate
        samples = np.concatenate(parts)
        if len(samples) / rate_hz < 0.9 * scenes[video.id]["duration_s"]:
            in_part += 1
            continue
        window = rate_hz // 50
        loudness = np.abs(samples[: len(samples) // window * window]).reshape(-1, window).max(1)
        is_loud = loudness > 0.1
        beeps = np.count_nonzero(is_loud[1:] & ~is_loud[:-1]) + is_loud[0]
        assert beeps == sum(act["times"] for act in scenes[video.id]["acts"])
        with_sound += 1
    assert (with_sound, without, in_part) == (5, 1, 1)


def test_dense_captions_tell_the_events(demo, scenes):
    for split in ("train", "val_1", "val_2"):
        for captions in demo.captions(split):
            acts = demo.happenings()[captions.video_id]
            assert 4 <= len(acts) == len(captions.spans) == len(captions.sentences)
            assert re.fullmatch(r"v_[a-z0-9]{11}", captions.video_id)
            for act, (start_s, end_s) in zip(acts, captions.spans, strict=True):
                assert 0 <= start_s < end_s <= captions.duration_s
                assert act.start_s - 0.5 < start_s <= act.start_s + 0.01
                assert act.end_s - 0.01 <= end_s < act.end_s + 0.5
            first, *others = captions.sentences
            assert first[0].isupper()
            assert all(sentence.startswith(" ") for sentence in others)
            assert all(sentence.endswith(".") for sentence in captions.sentences)


def test_sentences_name_who_does_what_and_can_be_read_back(demo):
    happenings = demo.happenings()
    for split in ("train", "val_1", "val_2"):
        for captions in demo.captions(split):
            for act, sentence in zip(
                happenings[captions.video_id], captions.sentences, strict=True
            ):
                assert said_in(sentence) == Said(act.color, act.shape, act.action)
    assert said_in("A red or blue star") == Said(None, "star", None)
    assert said_in("") == Said(None, None, None)


def test_figures_of_videos_take_turns(demo):
    """Before, between and after the events nobody is there, and in each only the one told of."""
    for clip in plan_demo(DemoSize(**SIZE, seed=3)).videos:
        events = demo.happenings()[clip.name]
        for number, event in enumerate(events):
            middle_s = (event.start_s + event.end_s) / 2
            there = [n for n in range(len(events)) if clip.scene.is_there(n, middle_s)]
            assert [clip.scene.figures[n].shape for n in there] == [event.shape]
            before_s = events[number - 1].end_s if number else 0.0
            gap_s = (before_s + event.start_s) / 2
            assert not any(clip.scene.is_there(n, gap_s) for n in range(len(events)))


def test_sentence_tables_agree(demo):
    of_key = demo.video_ids()
    assert len(set(of_key.values())) == len(of_key)
    for split in ("train", "test"):
        pairs = demo.sentence_pairs(split)
        told = {pair.sentence: pair.vid_key for pair in pairs}
        assert len(told) == len(pairs), "no sentence tells about two clips"
        for choice in demo.sentence_choices(split):
            assert len(set(choice.choices)) == 5
            assert told[choice.choices[choice.answer]] == choice.vid_key
        for blank in demo.sentence_blanks(split):
            assert blank.blank_sentence.split().count("_____") == 1
            assert blank.blank_sentence.replace("_____", blank.answer) == blank.sentence


def test_stories_know_who_is_who(demo, scenes):
    for split in demo.splits:
        for story in demo.stories(split):
            assert len(story.lines) == 5
            ids = {}
            for line in story.lines:
                assert line.sentence.count("SOMEONE") == line.blanked.count("[...]") >= 1
                assert len(line.person_ids) == len(line.names) == line.blanked.count("[...]")
                assert set(line.names) <= {track.character for track in line.tracks}
                for name, person in zip(line.names, line.person_ids, strict=True):
                    assert ids.setdefault(name, person) == person
                    assert re.fullmatch(r"\[90\d\d_PERSON\d\]", person)
                    assert story.genders[name] in "FM"
            assert len(set(ids.values())) == len(ids)


def test_boxes_are_where_the_figures_are(demo):
    """What a figure changes in its picture lies in its box and fills it, clip and frame alike."""
    small = plan_demo(DemoSize(**SIZE, seed=3))
    paths = {video.id: video.path for video in demo.videos()}
    tracks = {
        line.video_id: line.tracks
        for split in demo.splits
        for story in demo.stories(split)
        for line in story.lines
    }
    for clip in (clip for movie in small.movies for story in movie.stories for clip in story):
        scene, frames = clip.scene, mp4_frames(paths[clip.name])
        painter = Painter(scene, *VIDEO_SIZE)
        for number, person in enumerate(clip.cast):
            away = dataclasses.replace(scene.figures[number], height=0.01, x=-1.0)
            figures = (*scene.figures[:number], away, *scene.figures[number + 1 :])
            without = Painter(dataclasses.replace(scene, figures=figures), *VIDEO_SIZE)
            boxes = [
                box
                for track in tracks[clip.name]
                if track.character == person.name
                for box in track.boxes
            ]
            for frame, *box in boxes[:: len(boxes) // 3]:
                time_s = (frame + 0.5) / STORY_FPS
                picture = painter.frame(time_s)
                decoded = frames[frame].astype(int)
                assert np.abs(decoded - np.asarray(picture)).mean() < 6
                changed = ImageChops.difference(picture, without.frame(time_s)).convert("L")
                found = changed.point(lambda value: 255 * (value > 24)).getbbox()
                # tips of stars are thin, and a neighbour may hide an edge
                assert overlap(found, box) > 0.7, (clip.name, frame, found, box)


def test_every_mp4_has_all_its_frames(demo, scenes):
    for video in demo.videos():
        if video.path.suffix != ".mp4":
            continue
        with av.open(video.path) as media:
            fps = media.streams.video[0].average_rate
        frames = mp4_frames(video.path)
        assert len(frames) == round(scenes[video.id]["duration_s"] * fps)
        assert frames[0].shape == (120, 160, 3)


def test_the_generator_has_a_new_version_when_its_tables_change(plan):
    digest = hashlib.sha256()
    for name, text in sorted(plan.files.items()):
        if name.startswith("dataset/"):
            digest.update(text.encode())
    known = {5: "dddb27898e9affb6"}
    assert known[GENERATOR_VERSION] == digest.hexdigest()[:16]


def test_equal_parameters_give_equal_files(tmp_path):
    first, second, other = (
        make_demo(tmp_path / name, clips=8, videos=1, stories=0, seed=seed).root
        for name, seed in (("first", 5), ("second", 5), ("other", 6))
    )
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) > 20
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    assert (first / "scenes.json").read_bytes() != (other / "scenes.json").read_bytes()


def test_making_it_again_changes_nothing(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.root.rglob("*")}
    assert isinstance(make_demo(demo.root, **SIZE, seed=3), DemoDataset)
    assert {path: path.stat().st_mtime_ns for path in demo.root.rglob("*")} == before
    with pytest.raises(UsageError, match="with other parameters") as caught:
        make_demo(demo.root, **SIZE, seed=4)
    assert "name another folder" in caught.value.hint


def test_what_is_there_is_never_overwritten(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else than a demo dataset"):
        make_demo(tmp_path, clips=8)
    with pytest.raises(UsageError, match="is a file"):
        make_demo(tmp_path / "precious.txt", clips=8)
    with pytest.raises(UsageError, match="at least 8 clips"):
        make_demo(tmp_path / "small", clips=7)
    with pytest.raises(UsageError, match=r"there is no demo\.json in it"):
        open_dataset("demo", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_an_interrupted_generation_leaves_nothing(tmp_path):
    calls = []

    def interrupt(done, total):
        calls.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "demo", clips=8, videos=0, stories=0, progress=interrupt)
    assert calls == [(1, 8), (2, 8), (3, 8)]
    assert list(tmp_path.iterdir()) == []


def test_media_that_went_missing_are_noticed(tmp_path):
    root = tmp_path / "empty"
    root.mkdir()
    dataset = make_demo(root, clips=8, videos=0, stories=0)
    gone = dataset.videos()[0]
    gone.path.unlink()
    assert dataset.check().missing == (gone.id,)
    with pytest.raises(UsageError, match="has 7 media files"):
        make_demo(root, clips=8, videos=0, stories=0)


def test_without_ffmpeg_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "no-such-ffmpeg"))
    with pytest.raises(EnvironmentLacks, match="ffmpeg cannot be run"):
        make_demo(tmp_path / "demo", clips=8, videos=1, stories=0)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def plan():
    return plan_demo(DemoSize(clips=600, videos=12, stories=6, seed=0))


def test_no_answer_can_be_read_off_a_file(plan):
    repeating = [clip for clip in plan.gifs if clip.kind == "repeat"]
    counts = [clip.scene.acts[0].times for clip in repeating]
    of_kind = collections.defaultdict(set)
    for clip in plan.gifs:
        of_kind[clip.kind].add(len(clip.delays_cs))
    assert of_kind["still"] == of_kind["repeat"], "both are asked for counts"
    for length in (
        [len(clip.delays_cs) for clip in repeating],
        [clip.scene.duration_s for clip in repeating],
        [clip.size[0] for clip in repeating],
    ):
        assert abs(np.corrcoef(counts, length)[0, 1]) < 0.15
    names = [clip.name for clip in plan.gifs]
    assert len(set(names)) == len(names)
    assert len({len(name) for name in names}) == 1


def test_choices_give_no_answer_away(plan):
    """Neither its place nor being offered often makes an action the likely answer."""
    for task in ("action", "transition"):
        places, right, offered = (collections.Counter() for _ in range(3))
        for split in ("Train", "Test"):
            text = plan.files[f"dataset/{split}_{task}_question.csv"]
            header, *rows = [line.split("\t") for line in text.splitlines()]
            for row in rows:
                fields = dict(zip(header, row, strict=True))
                choices = [fields[f"a{place}"] for place in range(1, 6)]
                places[fields["answer"]] += 1
                offered.update(choices)
                right[choices[int(fields["answer"])]] += 1
        num = places.total()
        assert all(abs(places[str(place)] / num - 0.2) < 0.05 for place in range(5)), task
        # Who always takes one action when it is offered is right in a fifth of the questions.
        assert all(abs(right[action] / offered[action] - 0.2) < 0.06 for action in ACTIONS), task


def test_no_answer_prevails(plan):
    for task in TASKS:
        text = plan.files[f"dataset/Total_{task}_question.csv"]
        header, *rows = [line.split("\t") for line in text.splitlines()]
        answers = collections.Counter()
        for row in rows:
            fields = dict(zip(header, row, strict=True))
            answer = fields["answer"]
            answers[fields[f"a{int(answer) + 1}"] if "a1" in fields else answer] += 1
        assert answers.most_common(1)[0][1] < 0.25 * len(rows), task
