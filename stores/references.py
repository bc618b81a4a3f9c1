"""Versions with a name (tags) and versions in use (pins): both are kept from collection."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vlpipe.stores.errors import SnapshotGone, UsageError
from vlpipe.stores.layout import NODE_FILE, PINS, TAGS, check_tag, format_utc, now_utc, parse_utc
from vlpipe.stores.part import Part
from vlpipe.stores.sealed_json import seal, unseal
from vlpipe.stores.state import State
from vlpipe.stores.storage import Storage


@dataclass(frozen=True, slots=True)
class Tag:
    """A name of a version, and what was noted with it."""

    name: str
    version: int
    note: str | None


def write_tag(storage: Storage, name: str, state: State, note: str | None) -> None:
    """Names this version for ever.

    Raises UsageError when the name is taken by another version or with another note, or is none: a
    number alone would look like a version. SnapshotGone when files of the version are gone.
    """
    path = f"{TAGS}/{check_tag(name)}.json"
    if name.isdecimal():
        raise UsageError(f"the tag {name!r} would look like a version", hint=f"v{name}, say")
    body = {"version": state.version, "entry": state.entry_id, "note": note}
    is_new = storage.create(path, seal(body))
    if not is_new:
        found = _body(storage, path)
        if found["version"] != state.version or note not in (None, found.get("note")):
            raise UsageError(
                f"the tag {name!r} of {storage.url} names version {found['version']} already, with "
                f"the note {found.get('note')!r}",
                hint=f"take it away first: vlpipe store tag {storage.url} {name} --remove",
            )
    from vlpipe.stores.checkpoint_tables import live_parts

    # Only now: what was there before the tag stays from here on.
    gone = [part for part in live_parts(state) if not _is_there(storage, part)]
    if gone:
        if is_new:
            storage.remove(path)
        raise SnapshotGone(
            f"{len(gone)} parts of version {state.version} of {storage.url} were collected, the "
            f"first is {gone[0].folder}",
            hint="tag a version while it is retained",
        )


def read_tag(storage: Storage, name: str) -> int:
    """The version that a tag names."""
    try:
        return int(_body(storage, f"{TAGS}/{check_tag(name)}.json")["version"])
    except FileNotFoundError as error:
        tags = ", ".join(tag.name for tag in read_tags(storage)) or "there are none"
        raise UsageError(f"{storage.url} has no tag {name!r} ({tags})") from error


def read_tags(storage: Storage) -> list[Tag]:
    """All tags, by name."""
    tags = []
    for name in sorted(storage.names(TAGS)):
        if name.endswith(".json") and not name.startswith("."):
            body = _body(storage, f"{TAGS}/{name}")
            tags.append(Tag(name.removesuffix(".json"), int(body["version"]), body.get("note")))
    return tags


def remove_tag(storage: Storage, name: str) -> None:
    """Takes a name away from its version; UsageError when there is no such tag."""
    read_tag(storage, name)
    storage.remove(f"{TAGS}/{check_tag(name)}.json")


def write_pin(storage: Storage, run: str, version: int, hours: float) -> None:
    """Keeps a version from collection for some hours; to be renewed by the same run only."""
    expires = format_utc(datetime.now(UTC) + timedelta(hours=hours))
    body = {"version": version, "expires": expires}
    storage.replace(f"{PINS}/{check_tag(run)}.json", seal(body))


def read_pins(storage: Storage) -> dict[str, int]:
    """Runs with a pin that has not expired, and their versions."""
    pins = {}
    for name in storage.names(PINS):
        if name.endswith(".json") and not name.startswith("."):
            body = _body(storage, f"{PINS}/{name}")
            if parse_utc(body["expires"]) > parse_utc(now_utc()):
                pins[name.removesuffix(".json")] = int(body["version"])
    return pins


def _is_there(storage: Storage, part: Part) -> bool:
    return storage.size(f"{part.folder}/{NODE_FILE}") is not None  # which goes first


def _body(storage: Storage, path: str) -> dict[str, Any]:
    return unseal(storage.read(path), f"{storage.url}/{path}")
