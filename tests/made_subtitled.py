"""Small files in TVQA's form, and regions that answer half of their questions.

Every clip has four frames, two seconds apart. In one of them somebody names the thing that is held
(the subtitles say so, and nothing else does), and in another a region shows its colour. A question
asks for either, and its span holds that frame.
"""

import json
import random

import numpy as np

from vlpipe.pipelines.training.job import TrainingJob, parse_settings
from vlpipe.stores import FeatureDefinition, Features, FeatureStore

THINGS = ("ball", "book", "cup", "key", "hat", "lamp")
COLORS = ("red", "green", "blue", "white", "black", "pink")
SHOWS = ("s01e01", "friends_s01e02", "castle_s01e03")
NUM_FRAMES, FRAME_S, WIDTH = 4, 2.0, 8
SPLITS = {"train": 40, "val": 12, "test_public": 6}

TINY = (
    "model.text=words", "model.text_width=16", "model.middle=16", "model.hidden=16",
    "model.heads=2", "model.dropout=0", "task.least_count=1", "batch_size=8",
    "learning_rate=0.003", "device=cpu",
)  # fmt: skip


def make_tables(root, *, subtitles="srt"):
    """The three tables and the subtitles of all clips; what is to be seen in them."""
    root.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    truth, spoken, qid = {}, {}, 0
    for split, count in SPLITS.items():
        rows = []
        for n in range(count):
            clip = f"{SHOWS[n % 3]}_{split}_clip_{n:02d}"
            told = truth[clip] = {
                "thing": rng.choice(THINGS), "said_at": rng.randrange(NUM_FRAMES),
                "color": rng.choice(COLORS), "seen_at": rng.randrange(NUM_FRAMES),
            }  # fmt: skip
            spoken[clip] = [
                (frame, f"(Ann:)I hold the {told['thing']}." if frame == told["said_at"] else "Hm")
                for frame in range(NUM_FRAMES)
            ]
            for asked, answer, frame, words in (
                ("What does Ann hold?", told["thing"], told["said_at"], THINGS),
                ("What is its color?", told["color"], told["seen_at"], COLORS),
            ):
                choices = [answer, *rng.sample([w for w in words if w != answer], 4)]
                rng.shuffle(choices)
                start = frame * FRAME_S
                row = {"qid": qid, "q": asked, "vid_name": clip, "show_name": "made"}
                row |= {f"a{place}": choice for place, choice in enumerate(choices)}
                row |= {"ts": "NaN-NaN" if qid == 3 else f"{start}-{start + FRAME_S}"}
                if split != "test_public":
                    row["answer_idx"] = choices.index(answer)
                rows.append(row)
                qid += 1
        table = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"tvqa_{split}.jsonl").write_text(table, encoding="utf-8")
    if subtitles == "srt":
        (root / "tvqa_subtitles").mkdir()
        for clip, lines in spoken.items():
            text = "\n".join(
                f"{n + 1}\n{_clock(n * FRAME_S)} --> {_clock(n * FRAME_S + 1.5)}\n{line}\n"
                for n, line in lines
            )
            (root / "tvqa_subtitles" / f"{clip}.srt").write_text(text, encoding="iso-8859-1")
    return truth


def _clock(seconds):
    return f"00:00:{int(seconds):02d},{round(seconds % 1 * 1000):03d}"


def make_features(url, truth):
    """A store of `objects`, a row a region, two regions a frame of which one may show a color."""
    store = FeatureStore.create(url, durability="process")
    definition = FeatureDefinition("objects", "float32", (WIDTH,), ("channel",))
    rng = np.random.default_rng(0)
    with store.writer([definition]) as writer:
        for clip, told in truth.items():
            rows = 0.05 * rng.standard_normal((2 * NUM_FRAMES, WIDTH))
            rows[:, -1] += 1
            rows[2 * told["seen_at"], COLORS.index(told["color"])] += 3
            starts = np.repeat(np.arange(NUM_FRAMES) * FRAME_S, 2)
            spans = np.stack([starts, starts + FRAME_S], axis=1)
            writer.add(clip, {"objects": Features(rows.astype(np.float32), spans)})
    return store


def make_tokens(url, dataset):
    """A store of token features 6 wide, regions, and common sense 3 wide of each region."""
    widths = {"objects": WIDTH, "commonsense": 3, "question_tokens": 6, "subtitle_tokens": 6,
              "caption_tokens": 6}  # fmt: skip
    definitions = [FeatureDefinition(n, "float32", (w,), ("channel",)) for n, w in widths.items()]
    definitions.append(FeatureDefinition("question_place", "int64", (2,), ("qid_candidate",)))
    rng = np.random.default_rng(0)

    def rows(name, spans):
        drawn = rng.standard_normal((len(spans), widths[name])).astype(np.float32)
        return Features(drawn, np.asarray(spans, np.float64).reshape(-1, 2))

    asked = {}
    for split in SPLITS:
        for question in dataset.questions("subtitled_qa", split):
            asked.setdefault(question.video_id, []).append(question)
    with FeatureStore.create(url, durability="process").writer(definitions) as writer:
        for clip, questions in asked.items():
            frames = [(n * FRAME_S, (n + 1) * FRAME_S) for n in range(NUM_FRAMES) for _ in "ab"]
            places = [(q.qid, k) for q in questions for k in range(5) for _ in q.choices[k]]
            nothing = [(0, 0)] * len(places)
            lines = [(line.start_s, line.end_s) for line in dataset.subtitles(clip)
                     for _ in line.text.split()]  # fmt: skip
            writer.add(clip, {
                "objects": rows("objects", frames),
                "commonsense": rows("commonsense", frames),
                "question_tokens": rows("question_tokens", nothing),
                "question_place": Features(np.array(places), np.zeros((len(places), 2))),
                "subtitle_tokens": rows("subtitle_tokens", lines),
                "caption_tokens": rows("caption_tokens", [(0, 4)] * 3 + [(2, 8)] * 2),
            })  # fmt: skip


def make_job(folder, *changes, out="run"):
    """A job over the tables and the store below `folder`, which are made when missing."""
    if not (folder / "tables").exists():
        make_features(folder / "store", make_tables(folder / "tables"))
    return TrainingJob(
        model="iperceive_videoqa",
        task="subtitled_qa",
        dataset="tvqa",
        root=folder / "tables",
        store=str(folder / "store"),
        out=folder / out,
        settings=parse_settings(changes=(*TINY, *changes)),
    )
