"""What the tests of this folder share: a temporary Prefect server, and the noise of its end."""

from pathlib import Path

import pytest

MARKS = (
    pytest.mark.flows,
    # Prefect's own client and server raise these when the temporary server ends.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent:
            for mark in MARKS:
                item.add_marker(mark)


# Of the package, that is of this folder: a server needs up to half a minute to start, and while it
# runs it is also the one that commands would find.
@pytest.fixture(scope="package", autouse=True)
def prefect_server():
    """A temporary Prefect server."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield
