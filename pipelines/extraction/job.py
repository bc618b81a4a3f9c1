"""What a user asks of an extraction, as one validated value that travels as JSON."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from vlpipe.pipelines.extraction.shards import parse_shard, shard_of
from vlpipe.stores.datasets import Video, open_dataset
from vlpipe.stores.datasets.folder import FolderDataset
from vlpipe.stores.errors import UsageError

if TYPE_CHECKING:
    from vlpipe.extractors import ExtractorSpec
    from vlpipe.extractors.media import DecodePool


@dataclass(frozen=True, slots=True)
class Collection:
    """The videos of a job, and what of the dataset's annotations could not be read."""

    videos: tuple[Video, ...]
    left_out: tuple[str, ...]


class DaskOptions(BaseModel):
    """The Dask cluster that runs a job's batches.

    address: of a scheduler that runs (tcp://HOST:PORT, tls://...), or the file that it describes
        itself in; None: a cluster that is made for the job.
    cluster: where it is made: `local` processes, or `slurm` jobs by what dask-jobqueue is
        configured with.
    workers: how many are made; 0 makes one for each device, or for each core without a GPU.
    threads: on which each worker runs its networks; 0: its share of the cores of its machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = None
    cluster: Literal["local", "slurm"] = "local"
    workers: NonNegativeInt = 0
    threads: NonNegativeInt = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.address is not None and (self.cluster != "local" or self.workers):
            raise ValueError("a cluster with an address runs already: leave its kind and size out")
        if self.cluster == "slurm" and not self.workers:
            raise ValueError("say how many workers SLURM is to run (--dask-workers)")
        return self


class ExtractionJob(BaseModel):
    """Which videos, which features, with which weights, into which store.

    dataset, root: a registered dataset and its folder; or `paths`: media files and folders.
    store: path of the feature store, made if it does not exist.
    features: names of extractors. settings: extractor name to the fields of its Config.
    weights: extractor name, checkpoint role or `*` to a file, a published name, or `untrained`.
    split, limit: only that split, only the first so many videos that are on disk.
    shard: `k/n`, the k-th of n parts of the selected videos, 1 to n, by the hash of their ids: n
        commands with the same options share a job without knowing of each other.
    device: a torch device, or several with commas, which share the videos. compile: networks go
        through torch.compile.
    retry_failed: videos in quarantine are tried again. restore_deleted: so are videos that were
        deleted from the store.
    decode_workers: child processes that decode; 0 takes one less than the number of cores. With
        Dask they are those of each worker, and 0 takes its share of the cores.
    damaged_media: `strict` puts a video whose decoder reports errors in quarantine, `lenient`
        keeps what can be decoded of it.
    dask: the cluster that runs the batches; None: this process and its children.
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
    shard: str | None = None
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    store_dtype: Literal["float16", "float32"] = "float16"
    retry_failed: bool = False
    restore_deleted: bool = False
    decode_workers: NonNegativeInt = 0
    damaged_media: Literal["strict", "lenient"] = "strict"
    batch_seconds: PositiveInt = 60
    dask: DaskOptions | None = None

    @field_validator("shard")
    @classmethod
    def _check_shard(cls, shard: str | None) -> str | None:
        if shard is not None:
            parse_shard(shard)
        return shard

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that share the work."""
        return tuple(self.device.split(","))

    @property
    def source_name(self) -> str:
        """How summaries call the collection."""
        return self.dataset or "folder"

    def with_absolute_paths(self) -> "ExtractionJob":
        """The same job, independent of the current folder."""
        dask, address = self.dask, self.dask.address if self.dask else None
        if dask and address and Path(address).is_file():
            dask = dask.model_copy(update={"address": str(Path(address).absolute())})
        return self.model_copy(
            update={
                "root": None if self.root is None else self.root.absolute(),
                "paths": tuple(path.absolute() for path in self.paths),
                "store": self.store if "://" in self.store else str(Path(self.store).absolute()),
                "weights": {
                    name: str(Path(source).absolute()) if Path(source).is_file() else source
                    for name, source in self.weights.items()
                },
                "dask": dask,
            }
        )

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
            folder = FolderDataset.from_paths(list(self.paths))
            videos, left_out = folder.videos(), folder.left_out
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
        if self.shard is not None:
            number, count = parse_shard(self.shard)
            videos = [v for v in videos if shard_of(v.id, count) == number]
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

    def decode_pool(self, num_workers: int) -> "DecodePool":
        """The child processes that decode for one worker, none of them started yet."""
        from vlpipe.extractors.media import DecodePool

        return DecodePool(workers=num_workers, tolerance=self.damaged_media)
