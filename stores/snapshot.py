"""One version of a store: everything that only reads."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlpipe.stores.digest import content_digest
from vlpipe.stores.errors import FeatureMissing, SnapshotGone, StoreDamaged, VlpipeError
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.history import LogEntry, load_state, read_log
from vlpipe.stores.information import FeatureInfo, feature_info
from vlpipe.stores.lookup import feature_missing, find_generation
from vlpipe.stores.part import Part
from vlpipe.stores.part_reader import PartReader
from vlpipe.stores.reader import FeatureReader
from vlpipe.stores.state import State
from vlpipe.stores.status import VideoStatus, video_statuses
from vlpipe.stores.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa

    from vlpipe.stores.batch_rows import Pad
    from vlpipe.stores.row_choice import Sampling
    from vlpipe.stores.torch_dataset import StoreDataset
    from vlpipe.stores.verification import VerifyReport


class Snapshot:
    """What a store holds at one version. Users get one as a `FeatureStore`."""

    def __init__(self, storage: Storage, state: State) -> None:
        self._storage = storage
        self._state = state
        self._parts = PartReader(storage, self._explain_missing)
        self._readers: dict[tuple[str, str], FeatureReader] = {}

    @property
    def url(self) -> str:
        """The address: an absolute path, or `memory://NAME`."""
        return self._storage.url

    @property
    def version(self) -> int:
        """Number of the newest ledger entry that this handle sees."""
        return self._state.version

    def close(self) -> None:
        """Closes all files. Reading again opens them again."""
        self._parts.close()

    def __repr__(self) -> str:
        return f"<FeatureStore {self.url}, version {self.version}>"

    @property
    def features(self) -> Mapping[str, FeatureInfo]:
        """The active generation of each feature, by name."""
        return {
            name: feature_info(self._state, self._state.generations[name, generation])
            for name, generation in sorted(self._state.active.items())
        }

    @property
    def feature_names(self) -> list[str]:
        """The names of all features, also of those without an active generation, sorted."""
        return sorted({feature for feature, _ in self._state.generations})

    def generations(self, name: str) -> list[FeatureInfo]:
        """All generations of a feature that were not dropped, the active one first."""
        found = [
            feature_info(self._state, generation)
            for (feature, _), generation in sorted(self._state.generations.items())
            if feature == name
        ]
        if not found:
            raise feature_missing(self.url, self._state, name)
        return sorted(found, key=lambda info: not info.is_active)

    def __getitem__(self, name: str) -> FeatureReader:
        """The reader of `feature` (its active generation) or of `feature@generation`."""
        generation = find_generation(self.url, self._state, name)
        reader = self._readers.get(generation.key)
        if reader is None:
            reader = FeatureReader(self.url, self._state, generation, self._parts)
            self._readers[generation.key] = reader
        return reader

    def __contains__(self, name: object) -> bool:
        try:
            return (
                isinstance(name, str) and find_generation(self.url, self._state, name) is not None
            )
        except FeatureMissing:
            return False

    def videos(self) -> "pa.Table":
        """One row per live video, feature and generation, sorted by feature, generation, video.

        Columns: video_id, feature, generation, is_active, rows, seconds (it took to make them),
        source (digest of the media file), source_size, source_mtime_ns, note, version (entry
        that added it), part.
        """
        from vlpipe.stores.tables import videos_table

        return videos_table(self._state)

    def failed(self) -> "pa.Table":
        """The quarantine: video_id, feature, generation, kind, message, attempt, retry, version,
        time."""
        from vlpipe.stores.tables import failures_table

        return failures_table(self._state)

    def status(
        self, definition: FeatureDefinition, video_ids: Iterable[str]
    ) -> dict[str, VideoStatus]:
        """For each video: is this very generation of it stored, failed, deleted, or absent?"""
        return video_statuses(self._state, definition, video_ids)

    def log(self) -> list[LogEntry]:
        """All commits up to this version, oldest first."""
        return read_log(self._storage, self.version)

    def digest(self, feature: str, ids: Iterable[str] | None = None) -> str:
        """SHA-256 (hex) of what a feature holds: equal for equal rows, spans and ids, however
        they were committed. ids: of these videos only; those that it has not are passed over."""
        return content_digest(find_generation(self.url, self._state, feature), ids)

    def torch_dataset(
        self,
        features: Sequence[str],
        ids: Iterable[Any] | None = None,
        *,
        with_spans: bool = False,
        pad: "Pad" = "right",
        num_rows: int | None = None,
        sampling: "Sampling" = "even",
        join: str | None = None,
    ) -> "StoreDataset":
        """A map-style torch Dataset; an item is {"id": str, feature: Tensor [T, *row_shape], ...}.
        Its `loader(batch_size, ...)` is a DataLoader of padded batches.

        ids: which videos, in which order, as text or as an Arrow array of it; None: all that have
            every feature, sorted by id.
        with_spans: adds "spans": {feature: Tensor [T, 2] float64 seconds}.
        pad: the side on which batches are filled up with zeros.
        num_rows: at most so many rows of each video, chosen by `sampling`: "even" takes the
            middles of as many equal stretches, "random" one row of each (by torch's generator),
            "first" the beginning.
        join: a feature whose rows the others follow: item i has, of each other feature, for every
            row of this one the row whose span has the nearest middle.
        """
        from vlpipe.stores.torch_dataset import StoreDataset

        return StoreDataset(
            self,
            features,
            ids,
            with_spans=with_spans,
            pad=pad,
            num_rows=num_rows,
            sampling=sampling,
            join=join,
        )

    def verify(
        self, *, deep: bool = True, progress: Callable[[int, int], None] | None = None
    ) -> "VerifyReport":
        """What is wrong with the bytes of this version, if anything; never raises for damage.

        deep: compare every video with its checksum; otherwise only sizes and small files.
        progress: called with the numbers of parts checked and of all parts.
        """
        from vlpipe.stores.verification import verify_store

        return verify_store(self._storage, self._state, is_deep=deep, progress=progress)

    def _explain_missing(self, part: Part) -> VlpipeError:
        newest = load_state(self._storage)
        live = {row.part.id for g in newest.generations.values() for _, row in g.rows()}
        if part.id not in live:
            return SnapshotGone(
                f"the files of version {self.version} of {self.url} were collected; the newest "
                f"version is {newest.version}",
                hint="refresh, or tag or pin versions that must stay",
            )
        return StoreDamaged(
            f"{self.url}/{part.folder} has lost a file",
            hint="vlpipe store verify lists the videos concerned",
        )
