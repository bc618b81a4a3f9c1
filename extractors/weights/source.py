"""Which weights an extractor runs with: added or given files, or random numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vlpipe.extractors.errors import WeightsMissing
from vlpipe.extractors.weights.checkpoint import PublishedCheckpoint, read_conversion, sha256_of
from vlpipe.extractors.weights.folder import WeightsFolder
from vlpipe.stores.errors import UsageError

UNTRAINED = "untrained"


@dataclass(frozen=True)
class WeightsSource:
    """Which weights an extractor runs with: one file a role, or random numbers from a seed.

    published_sha256: by role, the hash of the published file where `files` names a copy of it.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    published_sha256: Mapping[str, str] = field(default_factory=dict)
    is_untrained: bool = False
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Identity for the provenance: hashes of the published files, never their paths."""
        if self.is_untrained:
            return {"untrained": True, "seed": self.seed}
        return {"untrained": False, "sha256": self._hashes}

    @cached_property
    def _hashes(self) -> dict[str, str]:
        # Once: a large checkpoint takes a second, and every feature's provenance asks for it.
        return {
            role: self.published_sha256.get(role) or sha256_of(path)
            for role, path in sorted(self.files.items())
        }


def parse_source(
    weights: str | Path | Mapping[str, str | Path] | None,
    published: Mapping[str, Sequence[PublishedCheckpoint]],
    folder: WeightsFolder,
) -> tuple[WeightsSource, dict[str, Any]]:
    """The source that `weights` names, and the settings that its checkpoints come with.

    Settings are those of a published checkpoint, and what a converted file has recorded.

    weights: None (what was added), `untrained` or `untrained:SEED`, a file, the name of a
        published checkpoint, or a mapping from role to file or name. A name belongs to the role
        that publishes it, a single file to the first role, and to others of which no checkpoint
        was added (some files hold several).
    """
    if isinstance(weights, str) and weights.partition(":")[0] == UNTRAINED:
        seed = weights.partition(":")[2] or "0"
        if not seed.isdecimal():
            raise UsageError(f"weights {weights!r}: expected untrained or untrained:SEED")
        return WeightsSource(is_untrained=True, seed=int(seed)), {}
    given: dict[str, str | Path] = {}
    owners: list[str] = []
    if isinstance(weights, Mapping):
        given = dict(weights)
    elif weights is not None:
        owners = [r for r, ps in published.items() if any(p.name == str(weights) for p in ps)]
        given = {owners[0] if owners else next(iter(published)): weights}

    single = weights if isinstance(weights, str | Path) and not owners else None
    files: dict[str, Path] = {}
    hashes: dict[str, str] = {}
    settings: dict[str, Any] = {}
    for role, checkpoints in published.items():
        wanted = given.pop(role, None)
        by_name = {p.name: p for p in checkpoints}
        if wanted is not None and str(wanted) not in by_name:
            path = Path(wanted)
            if not path.is_file():
                raise WeightsMissing(
                    f"weights {str(wanted)!r} for {role}: there is no such file, and no published "
                    f"checkpoint of that name ({', '.join(by_name)})",
                    hint="`vlpipe weights ls`",
                )
            files[role] = path
            continue
        for name in [str(wanted)] if wanted is not None else by_name:
            added = folder.find(name)
            if added is not None:
                files[role] = added.path
                hashes[role] = added.sha256
                settings |= by_name[name].settings
                break
        else:
            if single is not None:
                files[role] = Path(single)
            elif wanted is not None:
                entry = by_name[str(wanted)]
                raise WeightsMissing(
                    f"the published checkpoint {entry.name} is not in {folder.path}",
                    hint=f"get {entry.url}, then `vlpipe weights add {entry.name} FILE`",
                )
    if given:
        raise UsageError(
            f"no checkpoint is called {', '.join(map(repr, given))}; expected one of "
            f"{', '.join(published)}"
        )
    for role, path in files.items():
        conversion = read_conversion(path)
        if conversion.get("role") == role:
            settings |= conversion.get("settings", {})
    return WeightsSource(files=files, published_sha256=hashes), settings
