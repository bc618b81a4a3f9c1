"""Versions with a name (tags) and versions in use (pins): both are kept from collection."""

from datetime import UTC, datetime, timedelta

from vlpipe.stores.errors import UsageError
from vlpipe.stores.layout import PINS, TAGS, check_tag, format_utc, now_utc, parse_utc
from vlpipe.stores.sealed_json import seal, unseal
from vlpipe.stores.state import State
from vlpipe.stores.storage import Storage


def write_tag(storage: Storage, name: str, state: State, note: str | None) -> None:
    """Names this version for ever; UsageError when the name is taken by another version."""
    body = {"version": state.version, "entry": state.entry_id, "note": note}
    path = f"{TAGS}/{check_tag(name)}.json"
    if not storage.create(path, seal(body)) and (read_tag(storage, name) != state.version):
        raise UsageError(f"the tag {name!r} of {storage.url} names another version already")


def read_tag(storage: Storage, name: str) -> int:
    """The version that a tag names."""
    try:
        return _version(storage, f"{TAGS}/{check_tag(name)}.json")
    except FileNotFoundError as error:
        tags = ", ".join(sorted(read_tags(storage))) or "there are none"
        raise UsageError(f"{storage.url} has no tag {name!r} ({tags})") from error


def read_tags(storage: Storage) -> dict[str, int]:
    """All tags and their versions."""
    return {
        name.removesuffix(".json"): _version(storage, f"{TAGS}/{name}")
        for name in storage.names(TAGS)
        if name.endswith(".json") and not name.startswith(".")
    }


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
            path = f"{PINS}/{name}"
            body = unseal(storage.read(path), f"{storage.url}/{path}")
            if parse_utc(body["expires"]) > parse_utc(now_utc()):
                pins[name.removesuffix(".json")] = int(body["version"])
    return pins


def _version(storage: Storage, path: str) -> int:
    return int(unseal(storage.read(path), f"{storage.url}/{path}")["version"])
