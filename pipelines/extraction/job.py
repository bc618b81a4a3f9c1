"""What a user asks of an extraction, as one validated value that travels as JSON."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from vlpipe.stores.datasets import Video, open_dataset
from vlpipe.stores.datasets.folder import FolderDataset
from vlpipe.stores.errors import UsageError

if TYPE_CHECKING:
    from vlpipe.extractors import ExtractorSpec


@dataclass(frozen=True, slots=True)
class Collection:
    """The videos of a job, and what of the dataset's annotations could not be read."""

    videos: tuple[Video, ...]
    left_out: tuple[str, ...]


class ExtractionJob(BaseModel):
    """Which videos, which features, with which weights, into which store.

    dataset, root: a registered dataset and its folder; or `paths`: media files and folders.
    store: path of the feature store, made if it does not exist.
    features: names of extractors. settings: extractor name to the fields of its Config.
    weights: extractor name, checkpoint role or `*` to a file, a published name, or `untrained`.
    split, limit: only that split, only the first so many videos that are on disk.
    device: a torch device, or several with commas, which share the videos. compile: networks go
        through torch.compile.
    retry_failed: videos in quarantine are tried again. restore_deleted: so are videos that were
        deleted from the store.
    decode_workers: child processes that decode; 0 takes one less than the number of cores.
    damaged_media: `strict` puts a video whose decoder reports errors in quarantine, `lenient`
        keeps what can be decoded of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str | None = None
    root: Path | None = None
    paths: tuple[Path, ...] = ()
    store: str = "vlpipe-store"
    features: tuple[str, ...] = Field(min_length=1)
    settings: dict[str, dict[str, Any]] = {}
    weights: dict[str, str] = {}
    split: str | None = None
    limit: NonNegativeInt | None = None
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    store_dtype: Literal["float16", "float32"] = "float16"
    retry_failed: bool = False
    restore_deleted: bool = False
    decode_workers: NonNegativeInt = 0
    damaged_media: Literal["strict", "lenient"] = "strict"
    batch_seconds: PositiveInt = 60

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that share the work."""
        return tuple(self.device.split(","))

    @property
    def source_name(self) -> str:
        """How summaries call the collection."""
        return self.dataset or "folder"

    def collect(self) -> "Collection":
        """The selected videos in the dataset's order; UsageError when nothing was named."""
        if self.dataset is not None:
            if self.root is None:
                raise UsageError(
                    f"dataset {self.dataset!r} needs the folder of your copy",
                    hint=f"--root DIR; `vlpipe datasets check {self.dataset} --root DIR` tests it",
                )
            if self.paths:
                raise UsageError("name either a dataset or files and folders, not both")
            dataset = open_dataset(self.dataset, self.root)
            videos = dataset.videos(self.split)
            left_out = dataset.left_out
        elif self.paths:
            if self.split is not None:
                raise UsageError("files and folders have no splits", hint="leave --split out")
            videos = FolderDataset.from_paths(list(self.paths)).videos()
            left_out = ()
        else:
            raise UsageError(
                "nothing to extract from",
                hint="name files or folders, or --dataset NAME --root DIR",
            )
        if self.limit is not None:
            # Of a dataset with many dead links, the first so many that there are.
            usable = [v for v in videos if v.path is not None and v.problem is None]
            kept = {v.id for v in usable[: self.limit]}
            videos = [v for v in videos if v.id in kept]
        if not videos:
            where = ", ".join(map(str, self.paths)) or f"{self.root}"
            of = f" of split {self.split}" if self.split else ""
            raise UsageError(
                f"{where}: there are no videos{of} here", hint="name a file to force it"
            )
        return Collection(tuple(videos), left_out)

    def specs(self) -> list["ExtractorSpec"]:
        """The extractors configured, in the order of `features`, without their networks.

        Raises UsageError for an unknown name or setting, WeightsMissing without a checkpoint.
        """
        from vlpipe.extractors.configuration import configure_extractors

        return configure_extractors(
            self.features,
            weights=self.weights,
            settings=self.settings,
            device=self.devices[0],
            precision=self.precision,
            store_dtype=self.store_dtype,
            is_compiled=self.compile,
        )
