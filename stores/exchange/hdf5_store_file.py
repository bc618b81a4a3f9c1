"""Our own HDF5 file (`vlpipe.stores.hdf5_store`) as a layout: everything goes there and back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.checksum import crc32c
from vlpipe.stores.errors import StoreDamaged, UsageError
from vlpipe.stores.exchange.container import (
    Container,
    ExportPlan,
    Facts,
    Sample,
    Source,
    Target,
    require_path,
)
from vlpipe.stores.exchange.export_plan import FeatureRows
from vlpipe.stores.exchange.hdf5_files import Hdf5File, unwritable
from vlpipe.stores.exchange.hdf5_videos import as_os_error
from vlpipe.stores.exchange.layout import Slot
from vlpipe.stores.features import canonical_json
from vlpipe.stores.foreign_hdf5 import import_h5py
from vlpipe.stores.hdf5_index import FORMAT, FORMAT_VERSION, FeatureIndex
from vlpipe.stores.hdf5_store import Hdf5Store
from vlpipe.stores.stored_dtypes import BFLOAT16

FILE = "features.hdf5"


class Hdf5StoreFile(Container):
    """One file with the rows, times and provenance of any features."""

    has_places = False
    holds_empty = True

    def check_place(self, slot: str, place: str) -> None:
        raise UsageError(f"this layout has no places: {slot}={place} cannot be set")

    def open(self, path: Path, slots: Sequence[Slot], raw_dtype: str | None) -> "Hdf5StoreSource":
        del slots, raw_dtype
        return Hdf5StoreSource(path)

    def existing(self, plan: ExportPlan) -> list[Path]:
        path = plan.folder / FILE
        return [path] if path.exists() else []

    def create(self, plan: ExportPlan) -> "Hdf5StoreTarget":
        return Hdf5StoreTarget(plan)


class Hdf5StoreSource(Source):
    """Active generations only: the others are read by `Hdf5Store`."""

    def __init__(self, path: Path) -> None:
        require_path(path, "file")
        self._store = Hdf5Store.open(path / FILE if path.is_dir() else path)
        videos = self._store.videos().to_pylist()
        self._rows = {
            name: FeatureRows(self._store.url, [self._store[name]], videos)
            for name in self._store.features
        }
        self.slots = tuple(Slot(name, (), (name,), dtype=None) for name in self._rows)
        self.definitions = {name: rows.first.definition for name, rows in self._rows.items()}

    def keys(self) -> list[str]:
        return sorted({video_id for rows in self._rows.values() for video_id in rows.video_ids()})

    def read(self, key: str) -> Sample:
        sample = Sample(key)
        for slot, source in self._rows.items():
            if key not in source.first:
                continue
            try:
                sample.rows[slot], sample.spans[slot] = source.read(key)
                sample.facts[slot] = source.facts(key)
            except (StoreDamaged, OSError) as error:
                sample.problems[slot] = str(error)
        return sample

    def close(self) -> None:
        self._store.close()


class Hdf5StoreTarget(Target):
    """Sizes are known before, so that all rows of a feature are one contiguous dataset."""

    def __init__(self, plan: ExportPlan) -> None:
        unknown = [name for name, info in plan.infos.items() if info.dtype == BFLOAT16]
        if unknown:
            raise UsageError(
                f"{', '.join(unknown)}: this layout keeps stored dtypes, and HDF5 has no bfloat16",
                hint="choose the others by --feature, or another layout, which makes it float32",
            )
        store = {name: value for name, value in plan.store.items() if name != "failed"}
        facts = {"format": FORMAT, "store": store, "vlpipe_export": {"identity": plan.identity}}
        self._file = Hdf5File(plan.folder / FILE, facts)
        self._file.handle.attrs["format_version"] = FORMAT_VERSION
        self._file.handle["failed"] = json.dumps(plan.store["failed"])
        self._features = {
            slot.name: _FeatureGroup(self._file.handle, slot.name, plan) for slot in plan.slots
        }

    def add(
        self,
        key: str,
        slot: str,
        rows: npt.NDArray[Any],
        spans: npt.NDArray[np.float64],
        facts: Facts,
    ) -> None:
        try:
            self._features[slot].add(key, rows, spans, facts)
        except (OSError, RuntimeError) as error:
            raise unwritable(self._file.path, as_os_error(error)) from error

    def finish(self) -> list[Path]:
        try:
            for feature in self._features.values():
                feature.finish()
        except (OSError, RuntimeError) as error:
            raise unwritable(self._file.path, as_os_error(error)) from error
        return [self._file.finish()]

    def abandon(self) -> None:
        self._file.abandon()


class _FeatureGroup:
    def __init__(self, handle: Any, slot: str, plan: ExportPlan) -> None:  # noqa: ANN401
        self._info = plan.infos[slot]
        of_feature = [info for info in plan.infos.values() if info.name == self._info.name]
        # The only generation in a file is what its feature's name means.
        self._is_active = self._info.is_active or len(of_feature) == 1
        self._group = handle.create_group(f"{self._info.name}/{self._info.generation}")
        self._expected = sum(plan.num_rows[slot].values())
        self._rows = self._group.create_dataset(
            "rows", shape=(self._expected, *self._info.row_shape), dtype=self._info.dtype
        )
        self._spans = self._group.create_dataset("spans", shape=(self._expected, 2), dtype="<f8")
        self._videos: list[tuple[str, int, int, int, Facts]] = []
        self._num_rows = 0

    def add(
        self, key: str, rows: npt.NDArray[Any], spans: npt.NDArray[np.float64], facts: Facts
    ) -> None:
        begin, end = self._num_rows, self._num_rows + len(rows)
        if end > self._expected:
            raise StoreDamaged(f"{self._info.name}: more rows than its list of videos says")
        if len(rows):
            self._rows[begin:end] = rows
            self._spans[begin:end] = spans
        self._videos.append((key, len(rows), crc32c(rows), crc32c(spans), facts))
        self._num_rows = end

    def finish(self) -> None:
        if self._num_rows != self._expected:
            raise StoreDamaged(
                f"{self._info.name}: {self._num_rows} rows came, expected {self._expected}"
            )
        index = self._index()
        text = import_h5py().string_dtype("utf-8")
        for name, texts in (
            ("video_id", index.video_ids), ("source", index.sources), ("note", index.notes),
        ):  # fmt: skip
            self._group.create_dataset(name, data=list(texts), shape=(len(texts),), dtype=text)
        for name in (
            "row_start", "row_size", "crc32c", "spans_crc32c", "seconds", "source_size",
            "source_mtime_ns",
        ):  # fmt: skip
            self._group.create_dataset(name, data=getattr(index, name))
        self._group.attrs["definition"] = canonical_json(index.definition.to_json())
        self._group.attrs["is_active"] = self._is_active
        self._group.attrs["index_crc32c"] = index.checksum()

    def _index(self) -> FeatureIndex:
        sizes = np.array([video[1] for video in self._videos], "<i8")
        facts = [video[4] for video in self._videos]
        return FeatureIndex(
            definition=self._info.definition,
            is_active=self._is_active,
            video_ids=tuple(video[0] for video in self._videos),
            row_start=np.cumsum(sizes) - sizes,
            row_size=sizes,
            crc32c=np.array([video[2] for video in self._videos], "<u4"),
            spans_crc32c=np.array([video[3] for video in self._videos], "<u4"),
            sources=tuple(fact.source or "" for fact in facts),
            notes=tuple(fact.note or "" for fact in facts),
            seconds=np.array([np.nan if f.seconds is None else f.seconds for f in facts], "<f4"),
            source_size=_or_minus_one([fact.source_size for fact in facts]),
            source_mtime_ns=_or_minus_one([fact.source_mtime_ns for fact in facts]),
        )


def _or_minus_one(values: Sequence[int | None]) -> npt.NDArray[np.int64]:
    return np.array([-1 if value is None else value for value in values], "<i8")
