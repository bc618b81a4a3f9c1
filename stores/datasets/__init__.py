"""Catalogues and annotations of datasets: one public module per dataset, found by listing.

    dataset = open_dataset("tgif", "/data/tgif-qa")
    dataset.videos("test")                       # [Video(id, path or None, split, problem)]
    dataset.questions("count", "train")          # typed rows; a malformed one is an AnnotationError
    dataset.check()                              # what this copy holds, and what it lacks

See docs/datasets.md for what each dataset expects on disk and for how to add one.
"""

from vlpipe.stores.datasets._actions import Action, ActionClass, ActionVideo
from vlpipe.stores.datasets._captions import (
    DenseCaptions,
    SentenceBlank,
    SentenceChoice,
    SentencePair,
)
from vlpipe.stores.datasets._gaze import GazeClip
from vlpipe.stores.datasets._questions import (
    CountQuestion,
    FrameQuestion,
    MultipleChoiceQuestion,
    Question,
)
from vlpipe.stores.datasets._registry import (
    Dataset,
    DatasetCheck,
    RowProblem,
    TableCheck,
    Video,
    dataset_class,
    dataset_names,
    list_datasets,
    open_dataset,
    register_dataset,
)
from vlpipe.stores.datasets._stories import Story, StoryLine, Track
from vlpipe.stores.datasets._subtitles import SubtitleLine
from vlpipe.stores.datasets.demo import DemoDataset, make_demo
from vlpipe.stores.datasets.folder import FolderDataset
from vlpipe.stores.datasets.tgif import TgifDataset
from vlpipe.stores.datasets.tvqa import SubtitledQuestion

__all__ = [
    "Action",
    "ActionClass",
    "ActionVideo",
    "CountQuestion",
    "Dataset",
    "DatasetCheck",
    "DemoDataset",
    "DenseCaptions",
    "FolderDataset",
    "FrameQuestion",
    "GazeClip",
    "MultipleChoiceQuestion",
    "Question",
    "RowProblem",
    "SentenceBlank",
    "SentenceChoice",
    "SentencePair",
    "Story",
    "StoryLine",
    "SubtitleLine",
    "SubtitledQuestion",
    "TableCheck",
    "TgifDataset",
    "Track",
    "Video",
    "dataset_class",
    "dataset_names",
    "list_datasets",
    "make_demo",
    "open_dataset",
    "register_dataset",
]
