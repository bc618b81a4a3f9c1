"""Environment variables that libraries read when they are loaded; what the user has set stays."""

import os

_OFFLINE = {
    # Usage milestones of Prefect's SDK, and its server's own heartbeat.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The temporary server of a first run needs up to half a minute to make its database.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}

_TORCH = {
    # OpenMP threads that wait for each other spin by default. Beside decoding processes that takes
    # the very cores that would end the wait: networks ran five times slower on two busy cores.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Large arrays in pages of 2 MiB: each new one costs a five-hundredth of the page faults.
    "THP_MEM_ALLOC_ENABLE": "1",
}


def apply_offline_settings() -> None:
    """No telemetry, no call to the outside; to be called before Prefect is imported."""
    for name, value in _OFFLINE.items():
        os.environ.setdefault(name, value)


def apply_torch_settings() -> None:
    """Waiting threads sleep, arrays have large pages; to be called before torch is imported."""
    for name, value in _TORCH.items():
        os.environ.setdefault(name, value)
