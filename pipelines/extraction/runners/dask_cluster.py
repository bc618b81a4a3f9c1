"""Dask clusters: one that runs already, local processes, or jobs of SLURM."""

import importlib.util
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.config
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.deploy import Cluster
from distributed.security import Security
from distributed.system import MEMORY_LIMIT

from vlpipe.pipelines.extraction.cores import available_cores
from vlpipe.pipelines.extraction.job import DaskOptions
from vlpipe.pipelines.extraction.runners import dask_worker
from vlpipe.stores.errors import EnvironmentLacks, UsageError

GPU = "GPU"
"""The resource that a worker with a GPU declares: `dask worker --resources GPU=1`."""

# The results that workers keep are receipts. Networks and caches of allocators are what fills a
# worker, and pausing it or writing results to disk would free nothing.
_WORKER_SETTINGS = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
}

# A nanny needs longer than the 15 seconds of the default to bring a lost worker back, where the
# machine is busy and libraries come over a network; until then it must not be given up.
_CLUSTER_SETTINGS = {"distributed.deploy.lost-worker-timeout": "10 minutes"}


@contextmanager
def open_client(
    options: DaskOptions, devices: Sequence[str], *, notify: Callable[[str], None]
) -> Iterator[Client]:
    """A client of the cluster that the options name; a cluster that is made ends with it.

    notify: told the address and the dashboard. Raises EnvironmentLacks when no scheduler answers.
    """
    if options.address is not None:
        with _connect(options.address) as client:
            _introduce(client, notify)
            yield client
        return
    make = _slurm_cluster if options.cluster == "slurm" else local_cluster
    with (
        unchanged_environment(),
        dask.config.set(_CLUSTER_SETTINGS),
        make(devices, options.workers) as cluster,
        Client(cluster, set_as_default=False, name="vlpipe") as client,
    ):
        _introduce(client, notify)
        yield client


@contextmanager
def unchanged_environment() -> Iterator[None]:
    """Takes back, at its end, the variables that nannies set for the workers they start.

    They set them in this process and leave them there: one thread for each library, so that what
    is started next would be slower than it was asked to be, and its sums would have other bits.
    """
    names = (*dask.config.get("distributed.nanny.pre-spawn-environ"), "PYTHONHASHSEED")
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def local_cluster(devices: Sequence[str], num_workers: int = 0) -> Cluster:
    """Worker processes on this machine, each with one thread, watched by a nanny.

    Only this process can talk to them: whoever can talk to a Dask scheduler can run code.
    """
    security = Security.temporary()
    address = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
    dashboard = {"dashboard": _has_dashboard(), "dashboard_address": "127.0.0.1:0"}
    return SpecCluster(
        workers={
            n: {"cls": Nanny, "options": {**address, **options}}
            for n, options in enumerate(local_workers(devices, num_workers))
        },
        scheduler={"cls": Scheduler, "options": {**address, **dashboard, "port": 0}},
        security=security,
        silence_logs=logging.WARNING,
        name="vlpipe",
    )


def local_workers(devices: Sequence[str], num_workers: int = 0) -> list[dict[str, Any]]:
    """The options of each worker of this machine.

    devices: as in a job. Each GPU has one worker that sees no other GPU; on the CPU there are
    `num_workers`, or one for each core.
    """
    gpus = _visible_gpus(devices)
    if gpus is not None and num_workers > len(gpus):
        raise UsageError(
            f"{num_workers} workers were asked for, and the job has {len(gpus)} GPUs",
            hint="each worker has a GPU to itself: --device cuda, or cuda:0,cuda:1",
        )
    count = num_workers or (available_cores() if gpus is None else len(gpus))
    return [
        {
            "nthreads": 1,
            "memory_limit": MEMORY_LIMIT // count,
            "dashboard": False,
            "config": _WORKER_SETTINGS,
            "preload": [dask_worker.__name__],
            "silence_logs": logging.WARNING,
            "resources": {} if gpus is None else {GPU: 1},
            "env": {"CUDA_VISIBLE_DEVICES": "" if gpus is None else gpus[n]},
        }
        for n in range(count)
    ]


def _visible_gpus(devices: Sequence[str]) -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES of each worker is to be; None when the job needs no GPU."""
    import torch

    chosen = [torch.device(name) for name in devices]
    if all(device.type == "cpu" for device in chosen):
        return None
    named = [device.index for device in chosen if device.index is not None]
    indices = named or range(torch.cuda.device_count())
    if not indices:
        raise EnvironmentLacks("there is no GPU here", hint="use --device cpu, or --dask-address")
    # Where this process sees some GPUs only, its numbers count those.
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = seen.split(",") if seen else list(map(str, range(max(indices) + 1)))
    if max(indices) >= len(names):
        raise UsageError(f"there is no cuda:{max(indices)} among CUDA_VISIBLE_DEVICES={seen}")
    return [names[index] for index in indices]


def _slurm_cluster(devices: Sequence[str], num_workers: int) -> Cluster:
    cluster = slurm_cluster(devices)
    cluster.scale(jobs=num_workers)
    return cluster


def slurm_cluster(devices: Sequence[str]) -> Any:  # noqa: ANN401 - dask-jobqueue has no types
    """A cluster whose workers are SLURM jobs, of no size yet, as `jobqueue.slurm` in the Dask
    configuration describes them; each is one worker of one thread, with all cores of its job."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise EnvironmentLacks(
            "a cluster of SLURM jobs needs dask-jobqueue", hint="pip install 'vlpipe[dask]'"
        ) from None
    settings = dask.config.get("jobqueue.slurm")
    arguments = list(settings["worker-extra-args"])
    if any(name.startswith("cuda") for name in devices):
        arguments += ["--resources", f"{GPU}=1"]
    try:
        return SLURMCluster(
            cores=1,
            processes=1,
            job_cpu=settings["job-cpu"] or settings["cores"] or 1,
            worker_extra_args=arguments,
            scheduler_options={"dashboard_address": ":0"},
        )
    except ValueError as error:
        raise UsageError(
            f"dask-jobqueue is not configured for SLURM: {error}",
            hint="write jobqueue.slurm (queue, memory, walltime, cores) into ~/.config/dask",
        ) from error


def _connect(address: str) -> Client:
    is_file = Path(address).is_file()
    if not is_file and not re.search(r"://|:\d+$", address):
        raise UsageError(
            f"--dask-address {address}: there is no such scheduler file",
            hint="`dask scheduler --scheduler-file FILE` writes one; or tcp://HOST:8786",
        )
    try:
        if is_file:
            return Client(scheduler_file=address, set_as_default=False, name="vlpipe")
        return Client(address, set_as_default=False, name="vlpipe")
    except (OSError, ValueError) as error:
        raise EnvironmentLacks(
            f"no Dask scheduler answers at {address}: {error}",
            hint="`dask scheduler` prints its address; --dask-address tcp://HOST:8786",
        ) from error


def _introduce(client: Client, notify: Callable[[str], None]) -> None:
    text = f"Dask scheduler at {client.scheduler.address}"
    if client.dashboard_link and (client.cluster is None or _has_dashboard()):
        text += f", dashboard at {client.dashboard_link}"
    elif client.cluster is not None:
        text += ", no dashboard (pip install 'vlpipe[dask]')"
    notify(text)


def _has_dashboard() -> bool:
    return importlib.util.find_spec("bokeh") is not None
