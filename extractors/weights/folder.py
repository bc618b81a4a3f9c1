"""The weights folder: checkpoints that were added, as safetensors, each beside its origin."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path
from safetensors.torch import save_file

from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.weights.checkpoint import (
    CONVERSION_KEY,
    Checkpoint,
    PublishedCheckpoint,
    sha256_of,
)


@dataclass(frozen=True, slots=True)
class AddedCheckpoint:
    """A checkpoint in the weights folder.

    sha256, original: hash and name of the file that it was added from. copy_sha256: hash of
    `path`, the copy in the folder.
    """

    name: str
    path: Path
    sha256: str
    original: str
    copy_sha256: str


class WeightsFolder:
    """The folder of added checkpoints: `VLPIPE_WEIGHTS`, else the user's data folder."""

    def __init__(self, path: Path | None = None) -> None:
        default = user_data_path("vlpipe", appauthor=False) / "weights"
        self.path = path or Path(os.environ.get("VLPIPE_WEIGHTS") or default)

    def find(self, name: str) -> AddedCheckpoint | None:
        """The added checkpoint of that name."""
        origin = self.path / f"{name}.json"
        if not origin.is_file():
            return None
        facts = json.loads(origin.read_text(encoding="utf-8"))
        return AddedCheckpoint(
            name,
            self.path / f"{name}.safetensors",
            facts["sha256"],
            facts["file"],
            facts["copy_sha256"],
        )

    def add(
        self, published: PublishedCheckpoint, file: Path, check: Callable[[Checkpoint], None]
    ) -> AddedCheckpoint:
        """Checks `file` against what is known of it and keeps a safetensors copy.

        check: raises WeightsRejected for a checkpoint that the role's network does not accept.
        Raises WeightsRejected when hash, keys or shapes differ from the published ones.
        """
        checkpoint = Checkpoint.read(file)
        sha256 = sha256_of(file)
        if published.sha256 and not sha256.startswith(published.sha256):
            raise WeightsRejected(
                f"{file}: SHA-256 begins {sha256[:16]}, the published {published.filename} begins "
                f"{published.sha256}",
                hint=f"get {published.url} again, or use the file as it is: --weights "
                f"NETWORK={file}",
            )
        check(checkpoint)
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / f"{published.name}.safetensors"
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        kept = {CONVERSION_KEY: json.dumps(checkpoint.conversion)} if checkpoint.conversion else {}
        state = {k: v.contiguous().clone() for k, v in checkpoint.state.items()}
        save_file(state, temporary, kept)
        copy_sha256 = sha256_of(temporary)
        origin = {
            "sha256": sha256,
            "file": file.name,
            "published": published.url,
            "copy_sha256": copy_sha256,
        }
        origin_temporary = temporary.with_suffix(".origin")
        origin_temporary.write_text(json.dumps(origin, indent=1), encoding="utf-8")
        # The origin goes last: what has none is not in the folder.
        temporary.replace(target)
        origin_temporary.replace(self.path / f"{published.name}.json")
        return AddedCheckpoint(published.name, target, sha256, file.name, copy_sha256)
