"""Checkpoints: the state of a store at one version as tables, so that opening reads no history.

A checkpoint is derived from the ledger alone and may be deleted at any time. Its files are
created only if absent and `checkpoint.json`, with the size and checksum of each, comes last;
whoever finds one of them made by another with other bytes gives way.
"""

import json
import logging

import numpy as np
import numpy.typing as npt

from vlpipe.stores.checkpoint_tables import (
    PartNumbers,
    decode_arrow,
    decode_parquet,
    deletion_table,
    encode_arrow,
    encode_parquet,
    failure_table,
    manifest_table,
    read_deletions,
    read_failures,
)
from vlpipe.stores.checksum import crc32c, crc32c_hex
from vlpipe.stores.errors import StoreDamaged, StoreTooNew
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.generation import GenerationState
from vlpipe.stores.layered import Layered
from vlpipe.stores.layout import (
    CHECKPOINT_FILE,
    CHECKPOINTS,
    FORMAT_VERSION,
    LATEST_CHECKPOINT,
    checkpoint_folder,
    checkpoint_version,
)
from vlpipe.stores.manifest import Manifest, PartTable
from vlpipe.stores.sealed_json import Json, seal, unseal
from vlpipe.stores.state import State
from vlpipe.stores.storage import Storage

logger = logging.getLogger(__name__)


def checkpoint_versions(storage: Storage) -> list[int]:
    """Versions with a folder in `ckpt/`, newest first; some may be unfinished or damaged."""
    found = map(checkpoint_version, storage.names(CHECKPOINTS))
    return sorted((version for version in found if version is not None), reverse=True)


def write_checkpoint(storage: Storage, state: State) -> bool:
    """Whether the checkpoint of this state now exists, made by us or by another."""
    folder = checkpoint_folder(state.version)
    numbers = PartNumbers(state)
    files: dict[str, bytes] = {"parts.parquet": encode_parquet(numbers.table())}
    features = []
    for (feature, generation), found in sorted(state.generations.items()):
        num_videos, num_rows = found.counts
        stem = f"{feature}.{generation}"
        if num_videos:
            table = manifest_table(found, numbers.numbers)
            files[f"{stem}.parquet"] = encode_parquet(table)
            files[f"{stem}.arrow"] = encode_arrow(table)
        features.append(
            {
                "feature": feature,
                "generation": generation,
                "is_active": state.active.get(feature) == generation,
                "videos": num_videos,
                "rows": num_rows,
                "manifest": f"{stem}.arrow" if num_videos else None,
                "definition": found.definition.to_json(),
            }
        )
    failures = list(state.failures.items())
    deletions = list(state.deletions.items())
    files["failed.parquet"] = encode_parquet(failure_table(failures))
    files["deleted.parquet"] = encode_parquet(deletion_table(deletions))
    for name, data in files.items():
        if not storage.create(f"{folder}/{name}", data):
            logger.info("another writer makes checkpoint %d with other bytes", state.version)
            return False
    body: Json = {
        "format": FORMAT_VERSION,
        "version": state.version,
        "entry": state.entry_id,
        "time": state.time,
        "files": {
            name: {"bytes": len(data), "crc32c": crc32c_hex(data)} for name, data in files.items()
        },
        "features": features,
        "dropped": [[*key, version] for key, version in sorted(state.dropped.items())],
        "num_failed": len(failures),
        "num_deleted": len(deletions),
        "settings": {"min_writer": state.min_writer},
    }
    is_ours = storage.create(f"{folder}/{CHECKPOINT_FILE}", seal(body))
    if is_ours:
        storage.replace(LATEST_CHECKPOINT, json.dumps({"version": state.version}).encode())
    return is_ours


def read_checkpoint(storage: Storage, version: int) -> State | None:
    """The state of a checkpoint; None when it is not finished, StoreDamaged when it is broken."""
    try:
        body = _read_checkpoint_file(storage, version)
    except FileNotFoundError:
        return None
    folder = checkpoint_folder(version)
    files = _CheckedFiles(storage, folder, body["files"])
    parts = PartTable(decode_parquet(files.read("parts.parquet")))
    failed, deleted = files.read("failed.parquet"), files.read("deleted.parquet")
    state = State(
        version=version,
        entry_id=body["entry"],
        time=body["time"],
        dropped={(feature, gen): at for feature, gen, at in body["dropped"]},
        failures=Layered(lambda: read_failures(decode_parquet(failed)), body["num_failed"]),
        deletions=Layered(lambda: read_deletions(decode_parquet(deleted)), body["num_deleted"]),
        min_writer=body["settings"]["min_writer"],
        checkpoint_version=version,
        checkpoint_videos=sum(feature["videos"] for feature in body["features"]),
    )
    for feature in body["features"]:
        manifest = None
        if feature["manifest"] is not None:
            manifest = Manifest(decode_arrow(files.map(feature["manifest"])), parts)
        definition = FeatureDefinition.from_json(feature["definition"])
        key = (feature["feature"], feature["generation"])
        state.generations[key] = GenerationState(definition, key[1], manifest)
        if feature["is_active"]:
            state.active[key[0]] = key[1]
    return state


def check_checkpoint(storage: Storage, version: int) -> bool:
    """Whether there is a finished checkpoint; StoreDamaged when one of its files is broken."""
    if read_checkpoint(storage, version) is None:
        return False
    files = _read_checkpoint_file(storage, version)["files"]
    checked = _CheckedFiles(storage, checkpoint_folder(version), files)
    for name in files:
        checked.read(name)
    return True


def _read_checkpoint_file(storage: Storage, version: int) -> Json:
    name = f"{checkpoint_folder(version)}/{CHECKPOINT_FILE}"
    where = f"{storage.url}/{name}"
    body = unseal(storage.read(name), where)
    if body["format"] > FORMAT_VERSION:
        raise StoreTooNew(
            f"{where} has format {body['format']}, this vlpipe knows {FORMAT_VERSION}"
        )
    if body["version"] != version:
        raise StoreDamaged(f"{where} is that of version {body['version']}")
    return body


class _CheckedFiles:
    """The files of a checkpoint; each is compared with its size and checksum when read."""

    def __init__(self, storage: Storage, folder: str, expected: dict[str, Json]) -> None:
        self._storage = storage
        self._folder = folder
        self._expected = expected

    def read(self, name: str) -> bytes:
        return self.map(name).tobytes()

    def map(self, name: str) -> npt.NDArray[np.uint8]:
        path = f"{self._folder}/{name}"
        expected = self._expected[name]
        try:
            data = self._storage.map(path)
        except OSError as error:
            raise StoreDamaged(f"{self._storage.url}/{path} cannot be read: {error}") from error
        if len(data) != expected["bytes"] or f"{crc32c(data):08x}" != expected["crc32c"]:
            raise StoreDamaged(
                f"{self._storage.url}/{path}: size or checksum does not match",
                hint="delete its folder",
            )
        return data
