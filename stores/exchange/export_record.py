"""The record beside exported files: what they are, and whether the export was finished."""

import fcntl
import json
import logging
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlpipe.stores.errors import UsageError
from vlpipe.stores.exchange.container import ExportPlan
from vlpipe.stores.exchange.hdf5_files import sync_file, sync_folder, unwritable

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1


@contextmanager
def only_export_in(folder: Path) -> Iterator[None]:
    """Holds the folder for one export; UsageError while another process exports into it.

    The lock goes with the process, also when that is killed. File systems without locks have none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another export into {folder} is at work",
                hint="wait for it, or choose another folder",
            ) from None
        except OSError as error:
            logger.warning("%s cannot be locked: %s; let no other export use it", folder, error)
        yield
    finally:
        os.close(descriptor)


class ExportRecord:
    """`vlpipe-export.LAYOUT.json` in the folder of an export."""

    def __init__(self, plan: ExportPlan) -> None:
        self._plan = plan
        self.path = plan.folder / f"vlpipe-export.{plan.layout}.json"
        self._found = self._read()

    def is_begun(self) -> bool:
        """Whether this very export was begun here before."""
        return self._found.get("identity") == self._plan.identity

    def is_complete(self) -> bool:
        """Whether it was finished, and its files are there with their sizes. Of folders it is not
        known: their files must be looked at one by one."""
        if not self.is_begun() or not self._found.get("is_complete"):
            return False
        return all(
            (path := self._plan.folder / file["name"]).is_file()
            and path.stat().st_size == file["bytes"]
            for file in self._found["files"]
        )

    def files(self) -> tuple[str, ...]:
        return tuple(file["name"] for file in self._found.get("files", ()))

    def begin(self) -> None:
        self._write(is_complete=False, files=[])

    def complete(self, paths: Iterable[Path]) -> None:
        files = [
            {
                "name": path.relative_to(self._plan.folder).as_posix(),
                "bytes": 0 if path.is_dir() else path.stat().st_size,
            }
            for path in paths
        ]
        self._write(is_complete=True, files=files)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}  # no record, or one that was not written by us: not the same export
        is_ours = isinstance(found, dict) and found.get("schema_version") == SCHEMA_VERSION
        return found if is_ours else {}

    def _write(self, *, is_complete: bool, files: list[dict[str, Any]]) -> None:
        plan = self._plan
        self._found = {
            "schema_version": SCHEMA_VERSION,
            "layout": plan.layout,
            "identity": plan.identity,
            "is_complete": is_complete,
            "store_version": plan.store["version"],
            "slots": {
                slot.name: {
                    "place": slot.places[0] if slot.places else None,
                    "features": list(slot.features),
                    "generation": plan.infos[slot.name].generation,
                    "row_shape": list(plan.row_shapes[slot.name]),
                    "dtype": plan.dtypes[slot.name],
                    "videos": len(plan.num_rows[slot.name]),
                    "rows": sum(plan.num_rows[slot.name].values()),
                    "definition": plan.infos[slot.name].definition.to_json(),
                }
                for slot in plan.slots
            },
            "files": files,
        }
        temporary = self.path.with_name(f".tmp-{secrets.token_hex(8)}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_text(json.dumps(self._found, indent=1) + "\n", "utf-8")
                sync_file(temporary)
                temporary.replace(self.path)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(self.path.parent)
        except OSError as error:
            raise unwritable(self.path, error) from error
