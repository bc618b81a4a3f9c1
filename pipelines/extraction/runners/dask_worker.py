"""What runs inside a Dask worker: batches over one set of networks, which is built once a process.

Frames and rows never travel: a worker is told ids and paths, reads the media and writes the store
itself, and hands a small receipt back. Libraries are loaded with the first batch: until then the
worker's thread that talks to the scheduler unpickles this module, and must not stand still.
"""

import signal
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distributed import Worker, get_worker
from distributed.diagnostics.plugin import WorkerPlugin

import vlpipe
from vlpipe.pipelines.extraction.batches import Batch
from vlpipe.pipelines.extraction.cores import available_cores
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.stores.errors import EnvironmentLacks

if TYPE_CHECKING:
    from vlpipe.extractors import ExtractorSpec
    from vlpipe.pipelines.extraction.worker import ExtractionWorker


class ExtractionPlugin(WorkerPlugin):  # type: ignore[misc]  # its base is untyped
    """What every worker of the cluster, also one that joins later, is given for one job.

    name: by which a batch finds it. generations: of each feature as planned, so that a worker with
    other checkpoints says so and does not store something else. num_threads: of the networks;
    0 gives a worker its share of the cores.
    """

    def __init__(
        self,
        name: str,
        job: ExtractionJob,
        generations: Mapping[str, str],
        *,
        num_threads: int,
    ) -> None:
        self.name = name
        self._job = job
        self._generations = dict(generations)
        self._num_threads = num_threads
        self._version = vlpipe.__version__

    def setup(self, worker: Worker) -> None:
        """Prepares for batches; the networks wait for the first of them."""
        del worker
        if self._version != vlpipe.__version__:
            raise EnvironmentLacks(
                f"this Dask worker has vlpipe {vlpipe.__version__}, the command that runs the "
                f"extraction has {self._version}",
                hint="install the same version in both environments",
            )
        # Made here, because a plugin travels to its workers by pickle.
        self._lock = threading.Lock()
        self._extraction: ExtractionWorker | None = None
        self.stop = threading.Event()

    def teardown(self, worker: Worker) -> None:
        """Ends the decoding processes and closes the store."""
        del worker
        if self._extraction is not None:
            self._extraction.close()

    def run(self, batch: Batch, *, workers_here: int) -> str:
        """The receipt of the committed batch as JSON. One at a time, whatever Dask would do."""
        with self._lock:
            if self._extraction is None:
                self._extraction = self._open(workers_here)
            return self._extraction.run(batch, stop=self.stop).model_dump_json()

    def _open(self, workers_here: int) -> "ExtractionWorker":
        import torch

        from vlpipe.extractors.device import open_device
        from vlpipe.pipelines.extraction.worker import ExtractionWorker

        # A worker sees the one device that is its own.
        device = torch.device(self._job.devices[0]).type
        open_device(device)
        specs = [spec.on(device) for spec in self._job.specs()]
        self._check_generations(specs)
        share = max(1, available_cores() // workers_here)
        torch.set_num_threads(self._num_threads or share)
        decoders = self._job.decode_workers or max(1, share - 1)
        return ExtractionWorker(self._job, specs=specs, num_decoders=decoders)

    def _check_generations(self, specs: "list[ExtractorSpec]") -> None:
        for definition in (d for spec in specs for d in spec.definitions()):
            planned = self._generations[definition.name]
            if definition.generation != planned:
                raise EnvironmentLacks(
                    f"feature {definition.name} would be generation {definition.generation} on "
                    f"this Dask worker, and was planned as {planned}: its checkpoints or "
                    "libraries are others",
                    hint="give all machines the same weights folder and the same packages",
                )


def run_batch(batch: str, *, plugin: str, workers_here: int) -> str:
    """A Dask task: the JSON of a batch to that of its receipt.

    workers_here: workers that share a machine, and so its cores.
    """
    return _plugin(get_worker(), plugin).run(
        Batch.model_validate_json(batch), workers_here=workers_here
    )


def finish_early(*, plugin: str, dask_worker: Worker) -> None:
    """Lets the batch in flight on a worker end with the videos that were begun."""
    _plugin(dask_worker, plugin).stop.set()


def dask_setup(worker: Worker) -> None:
    """Called by Dask in the workers of a cluster that the command makes: Ctrl-C reaches all
    processes of a terminal, and it is the command that is meant."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _plugin(worker: Worker, name: str) -> ExtractionPlugin:
    found: Any = worker.plugins[name]
    assert isinstance(found, ExtractionPlugin)
    return found
