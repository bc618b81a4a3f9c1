"""A store in a bucket of S3 or of a service that speaks its language.

Credentials, region and endpoint come from where the AWS tools have them: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_ENDPOINT_URL, ~/.aws, the role of the machine. None is ever
part of an address or of the store.

A commit is one PUT with `If-None-Match: *`. A service that ignores this header would let two
writers overwrite each other; making a store tries it out, and is refused there.
"""

import importlib
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import EnvironmentLacks, StoreUnwritable, UsageError
from vlpipe.stores.layout import new_temporary_name
from vlpipe.stores.ledger import pause
from vlpipe.stores.local_files import unwritable
from vlpipe.stores.storage import Bytes, Request, create_alone

_TO_CHECK = (
    "the name of the bucket, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, "
    "AWS_ENDPOINT_URL, and the policy"
)

_MAX_ATTEMPTS = 30
_MOST_AT_ONCE = 32  # range requests


class S3Storage:
    """Objects are keys that begin with the path of the address."""

    def __init__(self, address: str) -> None:
        bucket, _, prefix = address.partition("/")
        if not bucket:
            raise UsageError(f"store address 's3://{address}' names no bucket")
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self.is_single_writer = False
        self._client: Any = None
        self._pid = 0

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    @property
    def local_folder(self) -> str | None:
        return None

    # reading

    def read(self, name: str) -> bytes:
        try:
            return self._content(name)
        except (PermissionError, ConnectionError) as error:
            raise self._unreadable(name, error) from error

    def map(self, name: str) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self.read(name), np.uint8)

    def open(self, name: str) -> "S3Object":
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(f"{self.url}/{name}")
        return S3Object(self, name, size)

    def read_ranges(self, requests: Sequence[Request]) -> list[int]:
        paths, starts, ends = [], [], []
        for file, offset, targets in requests:
            if not isinstance(file, S3Object):
                raise TypeError(f"{file} is no object of {self.url}")
            paths.append(self._path(file.name))
            starts.append(offset)
            ends.append(min(offset + sum(target.nbytes for target in targets), file.size))
        try:
            pieces: list[bytes] = self._ask(
                "cat_ranges", paths, starts, ends, batch_size=_MOST_AT_ONCE, on_error="raise"
            )
        except ConnectionError as error:
            raise self._unreadable("", error) from error
        return [
            _scatter(piece, targets)
            for piece, (_, _, targets) in zip(pieces, requests, strict=True)
        ]

    def read_range(self, name: str, start: int, end: int) -> bytes:
        try:
            data: bytes = self._ask("cat_file", self._path(name), start=start, end=end)
        except ConnectionError as error:
            raise self._unreadable(name, error) from error
        return data

    def size(self, name: str) -> int | None:
        head = self._head(name)
        return None if head is None else int(head["ContentLength"])

    def modified(self, name: str) -> float | None:
        head = self._head(name)
        return None if head is None else float(head["LastModified"].timestamp())

    def now(self) -> float:
        probe = new_temporary_name()
        self.write(probe, b"")
        try:
            return self.modified(probe) or 0.0
        finally:
            self.remove(probe)

    def age_s(self, name: str) -> float | None:
        written = self.modified(name)
        return None if written is None else self.now() - written

    def names(self, folder: str) -> list[str]:
        prefix = self._key(f"{folder}/" if folder else "")
        found = set()
        for page in self._pages(prefix, delimiter="/"):
            found |= {entry["Key"] for entry in page.get("Contents", ())}
            found |= {entry["Prefix"].rstrip("/") for entry in page.get("CommonPrefixes", ())}
        return sorted(key[len(prefix) :] for key in found if len(key) > len(prefix))

    # writing

    def prepare(self) -> None:
        try:
            self._ask("call_s3", "head_bucket", Bucket=self._bucket)
        except FileNotFoundError as error:
            raise EnvironmentLacks(
                f"there is no bucket {self._bucket!r}", hint="make it with the tools of the service"
            ) from error
        except OSError as error:
            raise self._unreadable("", error) from error

    def write(self, name: str, data: Bytes) -> None:
        body = data if isinstance(data, bytes) else data.tobytes()
        try:
            self._ask("pipe_file", self._path(name), body)
        except OSError as error:
            raise self._unwritable(name, error) from error

    def stream(self, name: str, reserve_bytes: int) -> "S3Stream":
        return S3Stream(self, name, reserve_bytes)

    def upload(self, name: str, path: str) -> None:
        """Makes an object of a local file; a large one in several requests."""
        try:
            self._ask("put_file", path, self._path(name))
        except OSError as error:
            raise self._unwritable(name, error) from error

    def sync(self, names: Sequence[str]) -> None:
        pass  # an answered PUT is durable

    def create(self, name: str, data: bytes) -> bool:
        if self.is_single_writer:
            return create_alone(self, name, data)
        for attempt in range(_MAX_ATTEMPTS):
            try:
                self._ask("pipe_file", self._path(name), data, mode="create")
                return True
            except PermissionError as error:
                raise self._unwritable(name, error) from error
            except OSError:
                pass
            # It exists, or the reply was lost, here or in the client that then asked again: the
            # object tells. Where there is none, the very same request may be sent once more.
            found = self._read_or_none(name)
            if found is not None:
                return found == data
            pause(attempt)
        raise StoreUnwritable(
            f"{self.url}/{name} cannot be written: no answer to {_MAX_ATTEMPTS} attempts",
            hint="check the service, then run the same command again",
        )

    def replace(self, name: str, data: bytes) -> None:
        self.write(name, data)

    def remove(self, name: str) -> None:
        keys = [self._key(name)]
        for page in self._pages(self._key(f"{name}/")):
            keys += [entry["Key"] for entry in page.get("Contents", ())]
        try:
            for start in range(0, len(keys), 1000):
                objects = [{"Key": key} for key in keys[start : start + 1000]]
                self._ask(
                    "call_s3", "delete_objects", Bucket=self._bucket, Delete={"Objects": objects}
                )
        except OSError as error:
            raise self._unwritable(name, error) from error

    # below

    def _fs(self) -> Any:  # noqa: ANN401 - of s3fs
        """The client of this process: one that was made before a fork has lost its thread."""
        if self._pid != os.getpid():
            try:
                s3fs: Any = importlib.import_module("s3fs")  # which has no types
            except ImportError as error:
                raise EnvironmentLacks(
                    f"{self.url} needs the package s3fs", hint="pip install 'vlpipe[s3]'"
                ) from error
            self._client = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
            self._pid = os.getpid()
        return self._client

    def _ask(self, method: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        """The answer of a method of the client. What botocore finds wrong by itself (no
        credentials, no connection, a name that no bucket can have) is no OSError there:
        ConnectionError here."""
        client = self._fs()
        errors: Any = importlib.import_module("botocore.exceptions")
        try:
            return getattr(client, method)(*arguments, **options)
        except errors.BotoCoreError as error:
            raise ConnectionError(str(error)) from error

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._key(name)}"

    def _head(self, name: str) -> dict[str, Any] | None:
        try:
            head: dict[str, Any] = self._ask(
                "call_s3", "head_object", Bucket=self._bucket, Key=self._key(name)
            )
        except FileNotFoundError:
            return None
        except (PermissionError, ConnectionError) as error:
            raise self._unreadable(name, error) from error
        return head

    def _pages(self, prefix: str, **options: str) -> list[dict[str, Any]]:
        """The listing of all keys that begin with a prefix."""
        pages: list[dict[str, Any]] = []
        request: dict[str, Any] = {"Bucket": self._bucket, "Prefix": prefix}
        if "delimiter" in options:
            request["Delimiter"] = options["delimiter"]
        while True:
            try:
                page = self._ask("call_s3", "list_objects_v2", **request)
            except FileNotFoundError:
                return []
            except (PermissionError, ConnectionError) as error:
                raise self._unreadable(prefix, error) from error
            pages.append(page)
            if not page.get("IsTruncated"):
                return pages
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _read_or_none(self, name: str) -> bytes | None:
        try:
            return self._content(name)
        except PermissionError as error:
            raise self._unreadable(name, error) from error
        except OSError:
            return None

    def _content(self, name: str) -> bytes:
        data: bytes = self._ask("cat_file", self._path(name))
        return data

    def _unreadable(self, name: str, error: OSError) -> EnvironmentLacks:
        return EnvironmentLacks(
            f"{self.url}/{name} cannot be read: {error}", hint=f"check {_TO_CHECK}"
        )

    def _unwritable(self, name: str, error: OSError) -> StoreUnwritable:
        return unwritable(f"{self.url}/{name}", error, _TO_CHECK)


class S3Object:
    """An object that is read in ranges."""

    def __init__(self, storage: S3Storage, name: str, size: int) -> None:
        self._storage = storage
        self.name = name
        self.size = size

    def read_into(self, offset: int, *targets: npt.NDArray[Any]) -> int:
        end = min(offset + sum(target.nbytes for target in targets), self.size)
        if end <= offset:
            return 0
        return _scatter(self._storage.read_range(self.name, offset, end), targets)

    def read_once(self, targets: Sequence[npt.NDArray[Any]], offset: int) -> int:
        return self.read_into(offset, *targets)


class S3Stream:
    """An object that grows in a temporary file of this machine and is uploaded when complete."""

    def __init__(self, storage: S3Storage, name: str, reserve_bytes: int) -> None:
        self._storage = storage
        self._name = name
        self._file = tempfile.NamedTemporaryFile(prefix="vlpipe-")  # noqa: SIM115 - closed below
        self.write(bytes(reserve_bytes))

    def write(self, data: Bytes) -> None:
        try:
            self._file.write(data if isinstance(data, bytes) else data.data)
        except OSError as error:
            raise unwritable(self._file.name, error) from error

    def close(self, head: bytes) -> None:
        try:
            self._file.seek(0)
            self._file.write(head)
            self._file.flush()
        except OSError as error:
            raise unwritable(self._file.name, error) from error
        self._storage.upload(self._name, self._file.name)
        self._file.close()

    def abandon(self) -> None:
        self._file.close()


def _scatter(data: bytes, targets: Sequence[npt.NDArray[Any]]) -> int:
    """Copies bytes into arrays, one after the other; how many were there."""
    place = 0
    source = np.frombuffer(data, np.uint8)
    for target in targets:
        found = source[place : place + target.nbytes]
        target.reshape(-1).view(np.uint8)[: len(found)] = found
        place += len(found)
    return place
