"""Questions about short clips: MASN on the four question tasks of the demo dataset."""

from collections.abc import Mapping
from types import MappingProxyType

from vlpipe.pipelines.demo.part import PartResult, Workplace
from vlpipe.pipelines.training.job import TrainingJob, parse_settings

_MOTION = '["motion_global", "motion_local"]'
_ALL = '["appearance_global", "appearance_local", "motion_global", "motion_local"]'

# A small network of the same parts. The extractor is untrained, so that its rows hardly differ:
# they are normalised, and motion is how they change. The paper's dropout is for many thousand
# examples; with some hundred nothing is learnt through it.
_COMMON = (
    "features.appearance_global=resnet18_conv2_x",
    "features.appearance_local=resnet18_conv2_x",
    "features.motion_global=resnet18_conv2_x",
    "features.motion_local=resnet18_conv2_x",
    "features.boxes=none",
    "model.clip_choice=mean",
    "model.normalise_inputs=true",
    "model.initialisation=he",
    "model.train_words=true",
    "model.train_projections=true",
    "model.mask_last_position=false",
    "model.mask_padded_words=true",
    "model.word_width=32",
    "model.hidden=48",
    "model.glimpses=2",
    "model.graph_layers=1",
    "model.dropout=0",
    "model.dropout_scale=0",
    "task.max_words=14",
    "batch_size=16",
    "learning_rate=0.003",
    "schedule=cosine",
    "validation_by=video",
    "warmup_epochs=2",
    "device=cpu",
)

SETTINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # What a frame shows is somewhere in it: cells of a few clips. How often something is done
        # is in what changes from row to row, and what is done in where a row departs from the
        # video's usual look: on the mean of all rows, or, to tell what comes first, of thirds.
        "frameqa": ("model.grid=4", "model.max_clips=2", "epochs=14", f"model.changes={_MOTION}"),
        "count": ("model.grid=1", "model.max_clips=6", "epochs=16", f"model.changes={_MOTION}"),
        "action": (
            "model.grid=1", "model.max_clips=1", "epochs=20", f"model.changes={_ALL}",
            "weight_decay=0.1",
        ),
        "transition": (
            "model.grid=1", "model.max_clips=3", "epochs=10", f"model.changes={_ALL}",
            "weight_decay=0.3",
        ),
    }
)  # fmt: skip


def learn_questions(place: Workplace) -> PartResult:
    """MASN on the four question tasks, a run each below `out/runs`."""
    result = PartResult()
    for task, settings in SETTINGS.items():
        if place.stop.is_set():
            break
        job = TrainingJob(
            model="masn",
            task=task,
            dataset="demo",
            root=place.dataset_root,
            store=place.store,
            out=place.out / "runs" / task,
            settings=parse_settings(changes=(*_COMMON, *settings)),
        )
        result.take(task, place.train(job))
    return result
