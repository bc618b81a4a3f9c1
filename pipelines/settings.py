"""Environment of Prefect: no telemetry, no call to the outside. Set before Prefect is imported."""

import os

_OFFLINE = {
    # Usage milestones of the SDK, and the server's own heartbeat.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The temporary server of a first run needs up to half a minute to make its database.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


def apply_offline_settings() -> None:
    """Sets what the user has not set."""
    for name, value in _OFFLINE.items():
        os.environ.setdefault(name, value)
