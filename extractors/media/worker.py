"""The child process: decodes one file after another under limits, for one parent.

Started by `vlpipe.extractors.media.child_process` as `python -m vlpipe.extractors.media.worker`.
Standard input carries jobs, standard output messages of `wire`; see `serve`.
"""

import os
import queue
import re
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlpipe.extractors.errors import MediaError
from vlpipe.extractors.media import wire
from vlpipe.extractors.media.blocks import AudioBlock, DecodeSummary, FrameBlock
from vlpipe.extractors.media.decode_file import DecodeJob, Stopped, decode_file
from vlpipe.extractors.media.decoder_log import DecoderLog
from vlpipe.extractors.media.limits import (
    DecodeLimits,
    confine_process,
    limit_cpu,
    limit_memory,
    too_large,
)
from vlpipe.extractors.media.probe_file import probe_file
from vlpipe.extractors.media.requests import request_from_json

_START_CPU_S = 60.0


class _Inbox:
    """Jobs from the parent; ends the process when the parent is gone, whatever it is doing."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._stopped_job = -1
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                header, _ = wire.receive_header(self._fd)
            except (wire.WireClosed, wire.WireDamaged, OSError):
                os._exit(0)
            if header["op"] == "stop":
                self._stopped_job = header["job"]
            else:
                self._jobs.put(header)

    def next_job(self) -> dict[str, Any]:
        return self._jobs.get()

    def is_stopped(self, job: int) -> bool:
        return self._stopped_job == job


class _Outbox:
    """Messages to the parent, each marked with the number of its job."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.job = -1

    def send_error(self, error: MediaError) -> None:
        self.send("error", error=error.kind, message=error.message, hint=error.hint)

    def send(self, kind: str, *payload: wire.Buffer, **fields: object) -> None:
        wire.send(self._fd, {"kind": kind, "job": self.job, **fields}, payload)

    def send_block(self, block: FrameBlock | AudioBlock) -> None:
        if isinstance(block, FrameBlock):
            self.send(
                "frames",
                block.spans.data,
                block.frames.data,
                request=block.request,
                shape=block.frames.shape,
                first=block.first_frame,
            )
        else:
            self.send(
                "audio",
                block.samples.data,
                request=block.request,
                samples=len(block.samples),
                start_s=block.start_s,
                first=block.first_sample,
            )


def serve(jobs_fd: int, messages_fd: int) -> None:
    """Answers jobs until the parent closes the pipe.

    A job is {op: probe | decode, job, path, limits, tolerance, decoder, threads, requests}. The
    answer is `info`, then blocks, then `done`; or `error` at any point.
    """
    import av

    log = DecoderLog()
    # The libraries' own C callback writes to descriptor 2; PyAV's would need the interpreter lock.
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR)
    inbox, outbox = _Inbox(jobs_fd), _Outbox(messages_fd)
    outbox.send("ready")
    while True:
        job = inbox.next_job()
        outbox.job = job["job"]
        try:
            _run(job, inbox, outbox, log)
        except Stopped:
            outbox.send("stopped")
        except MediaError as error:
            outbox.send_error(error)
        except MemoryError:
            outbox.send_error(
                too_large(f"{job['path']}: needs more memory than allowed", "memory_bytes")
            )
        except wire.WireClosed:
            return
        except Exception as error:
            # The border of one file: whatever a damaged one provokes costs no other.
            outbox.send_error(_unforeseen(job["path"], error))


def _unforeseen(path: str, error: Exception) -> MediaError:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return MediaError(
        "crashed",
        f"{path}: decoding failed in a way that was not foreseen: {type(error).__name__}: {error} "
        f"({Path(where.filename).name}:{where.lineno})",
        hint="the file is probably damaged; fetch it again or leave it out",
    )


def _run(job: dict[str, Any], inbox: _Inbox, outbox: _Outbox, log: DecoderLog) -> None:
    limits = DecodeLimits.from_json(job["limits"])
    path = Path(job["path"])
    started_s = _reset_usage()
    log.reset()
    limit_cpu(_START_CPU_S + limits.min_wall_s)
    probed = probe_file(path, limits, job["tolerance"], job["decoder"], log)
    # The parent's clock is the limit; this one only ends a child that outlives its parent.
    budget_s = limits.wall_s(probed.info.num_bytes, probed.info.duration_s)
    limit_cpu(_START_CPU_S + budget_s * max(1, job["threads"]))
    outbox.send("info", info=probed.info.to_json())
    if job["op"] == "probe":
        return
    counts = decode_file(
        DecodeJob(
            probed,
            [request_from_json(fields) for fields in job["requests"]],
            limits,
            job["tolerance"],
            job["decoder"],
            job["threads"],
            log,
        ),
        outbox.send_block,
        lambda: inbox.is_stopped(job["job"]),
    )
    summary = DecodeSummary(
        frames_decoded=counts.frames_decoded,
        frames_expected=probed.num_expected if counts.frames_decoded else 0,
        frames_scaled=counts.frames_scaled,
        samples_decoded=counts.samples_decoded,
        is_sparse=counts.is_sparse,
        decoder=counts.decoder,
        cpu_s=round(_cpu_s() - started_s, 4),
        peak_memory_bytes=_peak_memory(),
        warnings=tuple(counts.warnings),
    )
    outbox.send("done", summary=summary.to_json())


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system


def _reset_usage() -> float:
    """Processor seconds so far; also starts a new measurement of peak memory where Linux can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_bytes(b"5")
    return _cpu_s()


def _peak_memory() -> int:
    # getrusage would report the parent's peak too: it survives exec.
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
        return int(found[1]) * 1024 if found else 0
    return 0


def main() -> None:
    """Confines this process and serves the parent on the two pipes that it was given."""
    memory_bytes = int(sys.argv[1])
    # Before any thread is started: name spaces are joined by single-threaded processes only.
    confine_process()
    # Libraries that print must not write into the messages.
    messages_fd = os.dup(1)
    os.dup2(2, 1)
    limit_memory(memory_bytes)
    with suppress(wire.WireClosed):
        serve(0, messages_fd)


if __name__ == "__main__":
    main()
