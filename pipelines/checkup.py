"""What works on this machine: the checks behind `vlpipe doctor`, each with a way out."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from vlpipe.pipelines.prefect_server import configured_server, require_server
from vlpipe.stores.errors import VlpipeError

Level = Literal["ok", "warn", "fail"]

_ENOUGH_DISK_BYTES = 5 * 10**9


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: what was looked at, what was found, and the fix if it is not ok."""

    name: str
    level: Level
    found: str
    fix: str | None = None


def check_machine(store: str | None = None) -> Iterator[Finding]:
    """One finding after the other; a check that breaks is itself a finding.

    store: address of a feature store to look at as well.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _rooms,
        _packages,
        _media,
        _devices,
        _disk,
        _weights,
        _prefect,
    ]
    if store is not None:

        def _store_check() -> Iterator[Finding]:
            return _store(store)

        checks.append(_store_check)
    for check in checks:
        try:
            yield from check()
        except VlpipeError as error:
            yield Finding(_name(check), "fail", error.message, error.hint)
        except Exception as error:  # a broken part is what the doctor looks for
            found = f"{type(error).__name__}: {error}"
            yield Finding(_name(check), "fail", found, "reinstall vlpipe")


def _name(check: Callable[[], Iterator[Finding]]) -> str:
    names = {_prefect: "Prefect API", _media: "decoding", _disk: "store access"}
    return names.get(check, check.__name__.strip("_"))


def _python() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")


def _rooms() -> Iterator[Finding]:
    # A checkout without support for links loses them silently.
    lost = [
        room
        for room in ("stores", "extractors", "models", "pipelines")
        if importlib.util.find_spec(f"vlpipe.{room}") is None
    ]
    if lost:
        yield Finding(
            "package",
            "fail",
            f"vlpipe.{', vlpipe.'.join(lost)} cannot be imported",
            "check out on a file system with symbolic links, or `pip install` a wheel",
        )
    else:
        yield Finding("package", "ok", f"vlpipe {importlib.metadata.version('vlpipe')}")


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    wrong: list[str] = []
    wanted = [Requirement(text) for text in importlib.metadata.requires("vlpipe") or ()]
    used = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in used:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if wrong:
        fixes = " ".join(f"'{r}'" for r in used if any(w.startswith(f"{r.name} ") for w in wrong))
        yield Finding("packages", "fail", "; ".join(wrong), f"pip install {fixes}")
    else:
        yield Finding("packages", "ok", f"{len(used)} requirements met")


def _media() -> Iterator[Finding]:
    import av
    import imageio_ffmpeg
    from PIL import Image

    yield Finding("PyAV", "ok", f"{av.__version__}, libavcodec {_version(av, 'libavcodec')}")
    program = imageio_ffmpeg.get_ffmpeg_exe()
    yield Finding("ffmpeg", "ok", f"{imageio_ffmpeg.get_ffmpeg_version()} ({program})")
    from vlpipe.extractors.media import DecodePool, FrameRequest

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "two_frames.gif"
        black, white = (Image.new("L", (16, 16), shade) for shade in (0, 255))
        black.save(path, save_all=True, append_images=[white], duration=[100, 100])
        with DecodePool(workers=1) as pool, pool.open(path, [FrameRequest()]) as stream:
            count = sum(len(getattr(block, "frames", ())) for block in stream)
    if count == 2:
        yield Finding("decoding", "ok", "a child process decoded a GIF")
    else:
        yield Finding("decoding", "fail", f"2 frames were written, {count} decoded", "reinstall av")


def _version(av: object, library: str) -> str:
    versions = getattr(av, "library_versions", {})
    return ".".join(map(str, versions.get(library, ("?",))))


def _devices() -> Iterator[Finding]:
    import torch

    yield Finding(
        "torch",
        "ok",
        f"{torch.__version__}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}",
    )
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            yield Finding(
                "GPU", "ok", f"cuda:{index} {facts.name}, {facts.total_memory / 2**30:.0f} GiB"
            )
    else:
        yield Finding(
            "GPU",
            "warn",
            "none that torch can use",
            "fine for tests and the demo; for large datasets see the CUDA notes of "
            "your torch build",
        )


def _disk() -> Iterator[Finding]:
    for what, path in (("temporary files", tempfile.gettempdir()), ("here", ".")):
        free = shutil.disk_usage(path).free
        is_enough = free > _ENOUGH_DISK_BYTES
        yield Finding(
            f"disk ({what})",
            "ok" if is_enough else "warn",
            f"{free / 1e9:.0f} GB free",
            None if is_enough else "features of a large dataset take tens of gigabytes",
        )
    from vlpipe.stores import FeatureStore

    with tempfile.TemporaryDirectory(dir=".") as folder:
        FeatureStore.create(str(Path(folder) / "store")).close()
    yield Finding("store access", "ok", "a store can be made in this folder")


def _weights() -> Iterator[Finding]:
    from vlpipe.extractors.registry import list_checkpoints
    from vlpipe.extractors.weights.folder import WeightsFolder

    folder = WeightsFolder()
    known = list_checkpoints()
    added = [name for name in known if folder.find(name) is not None]
    if added:
        yield Finding("weights", "ok", f"{', '.join(added)} in {folder.path}")
    else:
        yield Finding(
            "weights",
            "warn",
            f"none of {len(known)} published checkpoints in {folder.path}",
            "`vlpipe weights ls`, then `vlpipe weights add NAME FILE`",
        )


def _prefect() -> Iterator[Finding]:
    from vlpipe.pipelines.settings import apply_offline_settings

    apply_offline_settings()
    yield Finding("prefect", "ok", importlib.metadata.version("prefect"))
    url = configured_server()
    if url is None:
        yield Finding("Prefect API", "ok", "PREFECT_API_URL is not set: commands run directly")
    else:
        yield _api(url)
        yield from _registered()
    quiet = os.environ["DO_NOT_TRACK"] == "1" and re.fullmatch(
        r"(?i)false|0", os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"]
    )
    yield Finding(
        "telemetry",
        "ok" if quiet else "warn",
        "off" if quiet else "on",
        None if quiet else "unset DO_NOT_TRACK and PREFECT_SERVER_ANALYTICS_ENABLED",
    )


def _api(url: str) -> Finding:
    require_server(url)
    host = urlsplit(url).hostname
    if host in ("0.0.0.0", "::"):
        return Finding(
            "Prefect API",
            "warn",
            f"{url}: whoever connects can run code",
            "bind the server to 127.0.0.1",
        )
    return Finding("Prefect API", "ok", url)


def _registered() -> Iterator[Finding]:
    """What the server lacks to run deployments, and to notice when a run dies."""
    from vlpipe.pipelines.prefect_parts.registration import read_server_state

    state = read_server_state()
    if not state.deployments:
        found = "none of vlpipe on this server"
        yield Finding("deployments", "ok", f"{found}; `vlpipe deploy` registers them")
        return
    yield Finding("deployments", "ok", ", ".join(state.deployments))
    for name, problem in state.pools.items():
        fix = f"prefect worker start --pool {name}"
        if problem == "is paused":
            fix = f"prefect work-pool resume {name}"
        elif problem == "does not exist":
            fix = "vlpipe deploy, as before, makes it"
        yield Finding(
            f"work pool {name}", "warn" if problem else "ok", problem or "has a worker",
            fix if problem else None,
        )  # fmt: skip
    for name in state.automations:
        yield Finding(
            "automation", "warn", f"missing or switched off: {name}",
            "vlpipe deploy, as before, makes it; the server's UI switches it on",
        )  # fmt: skip
    if not state.automations:
        yield Finding("automations", "ok", "dead runs are noticed and started again")


def _store(url: str) -> Iterator[Finding]:
    from vlpipe.stores import FeatureStore

    with FeatureStore.open(url) as store:
        yield Finding(
            "store", "ok", f"{url}: version {store.version}, {len(store.features)} features"
        )


def python_and_platform() -> str:
    """One line for reports: versions of Python and of what computes."""
    import numpy as np
    import torch

    return (
        f"Python {sys.version.split()[0]}, torch {torch.__version__}, numpy {np.__version__}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )
