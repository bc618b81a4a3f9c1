"""The temporary Prefect server of this folder."""

import pytest


# Of the package, that is of this folder: a server needs up to half a minute to start, and while it
# runs it is also the one that commands would find.
@pytest.fixture(scope="package")
def prefect_server():
    """A temporary Prefect server, for the modules that ask for it."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield
