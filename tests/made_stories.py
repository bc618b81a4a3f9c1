"""A small copy of M-VAD Names and a store whose features tell who is who, for tests of `reid`.

A person's face is the axis of its number, so that a network of a few numbers learns it in seconds.
What somebody does is another axis, of the motion and by the verb.
"""

import json
import random

import av
import numpy as np

from vlpipe.stores import FeatureDefinition, Features, FeatureStore

NAMES = ("ADA", "BORIS", "CORA", "DAN")
VERBS = ("jumps", "waits", "sings", "falls")
FRAMES, FPS, SIZE = 12, 10, (64, 48)
WIDTH = len(NAMES) + 4

SETTINGS = (
    "features.face=faces", "features.face_count=faces_count", "features.meta=table",
    "features.motion=motion", "features.parts=none", "features.visible=none",
    "features.boxes=boxes", "features.box_track=boxes_id", "features.box_frame=boxes_frame",
    "model.hidden=16", "model.text_width=16", "model.dropout=0", "model.normalise_inputs=true",
    "model.variant=public", "task.text=words", "task.track_loss=cross_entropy",
    "task.weights.text=1", "task.weights.video=1", "batch_size=4", "learning_rate=0.01",
    "epochs=12", "device=cpu",
)  # fmt: skip


def make_stories(root, store_url, *, num=12, media=()):
    """Clips M_DVS0 ... of a movie, five a story, below root, and their features.

    media: numbers of clips that are also written as video files. Two people are in every clip, and
    the first of them is mentioned; in every third clip both are. The last clip of the first story
    has nobody in it.
    """
    root.mkdir(parents=True)
    rng = random.Random(0)
    plan = []
    for number in range(5 * num):
        if number % 5 == 0:
            cast = rng.sample(range(len(NAMES)), 2)
        pair = rng.sample(cast, 2)
        acts = rng.sample(range(len(VERBS)), 2)
        plan.append([] if number == 4 else list(zip(pair, acts, strict=True)))
    _tables(root, plan)
    _features(store_url, plan)
    for number in media:
        _video(root / "M" / f"M_DVS{number}.mp4")
    return plan


def box_of(place, frame):
    """x0, y0, x1, y1 of the figure at that place of a clip."""
    return [4 + 30 * place, 8 + frame % 3, 24 + 30 * place, 40 + frame % 3]


def sentence_of(number, people):
    said = people if number % 3 == 0 else people[:1]
    names = [f"<PERSON>{NAMES[who]}</PERSON> {VERBS[act]}" for who, act in said]
    return f"{' while '.join(names)}." if names else "It rains."


def _tables(root, plan):
    tracks, captions, clips = {}, ["movie\tclip\tclip_id\tsentence"], []
    for number, people in enumerate(plan):
        # Boxes of faces, as in M-VAD Names: the upper half of the person's.
        tracks[f"DVS{number}"] = {
            NAMES[who]: [
                [[f, x0 + 5, y0, x1 - 5, (y0 + y1) // 2] for f in range(FRAMES)
                 for x0, y0, x1, y1 in [box_of(place, f)]]
            ]
            for place, (who, _) in enumerate(people)
        }  # fmt: skip
        captions.append(f"M\tDVS{number}\tM_DVS{number}\t{sentence_of(number, people)}")
        clips.append(f"M_DVS{number}")
    (root / "mvad-names.json").write_text(json.dumps({"M": {"characters": {}, "videos": tracks}}))
    (root / "captions.csv").write_text("".join(f"{line}\r\n" for line in captions))
    genders = "".join(f"M\t{name}\t{'FM'[n % 2]}\r\n" for n, name in enumerate(NAMES))
    (root / "characters.csv").write_text(f"movie\tname\tgender\r\n{genders}")
    edges = (0, len(clips) // 5 // 2 * 5, len(clips) // 5 * 3 // 4 * 5, len(clips))
    for split, first, last in zip(("train", "val", "test"), edges, edges[1:], strict=False):
        (root / f"{split}.txt").write_text("".join(f"{clip}\n" for clip in clips[first:last]))


def _features(url, plan):
    store = FeatureStore.create(url, durability="process")
    names = {
        "faces": ("float32", (WIDTH,), ("channel",)), "faces_count": ("int32", (), ()),
        "table": ("float32", (4,), ("number",)), "motion": ("float32", (len(VERBS),), ("act",)),
        "boxes": ("float32", (4,), ("corner",)), "boxes_id": ("int32", (), ()),
        "boxes_frame": ("int32", (), ()),
    }  # fmt: skip
    definitions = [FeatureDefinition(name, *kind) for name, kind in names.items()]
    rng = np.random.default_rng(0)
    with store.writer(definitions) as writer:
        for number, people in enumerate(plan):
            spans = np.tile([0.0, FRAMES / FPS], (len(people), 1))
            frames = [(f, place) for f in range(FRAMES) for place in range(len(people))]
            box_spans = np.array([[f / FPS, (f + 1) / FPS] for f, _ in frames]).reshape(-1, 2)
            faces = 0.1 * rng.standard_normal((len(people), WIDTH))
            motion = 0.1 * rng.standard_normal((len(people), len(VERBS)))
            for place, (who, act) in enumerate(people):
                faces[place, who] += 1
                motion[place, act] += 1
            rows = {
                "faces": faces, "faces_count": np.ones(len(people)), "motion": motion,
                "table": np.tile([0.5, 0.5, 0.2, 0.04], (len(people), 1)),
                "boxes": [box_of(place, f) for f, place in frames],
                "boxes_id": [place for _, place in frames],
                "boxes_frame": [f for f, _ in frames],
            }  # fmt: skip
            writer.add(
                f"M_DVS{number}",
                {
                    name: Features(
                        np.asarray(value, names[name][0]).reshape(-1, *names[name][1]),
                        box_spans if name.startswith("boxes") else spans,
                    )
                    for name, value in rows.items()
                },
            )


def _video(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as media:
        stream = media.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for frame in range(FRAMES):
            picture = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
            for place in range(2):
                x0, y0, x1, y1 = box_of(place, frame)
                picture[y0:y1, x0:x1] = 200
            media.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        media.mux(stream.encode())
