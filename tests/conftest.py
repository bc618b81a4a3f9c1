"""Settings that hold for all tests, before any of them imports torch or Prefect; who goes first."""

from pathlib import Path

import pytest

from vlpipe.pipelines.settings import apply_offline_settings, apply_torch_settings

apply_offline_settings()
apply_torch_settings()

TESTS = Path(__file__).parent

# Files and folders of half a minute and more. They start first: what starts last decides how long
# one process of several works alone.
LONGEST = (
    "pipelines/test_schedule.py",
    "pipelines/test_interruption.py",
    "pipelines/test_demo.py",
    "pipelines/flows",
    "pipelines/test_extraction.py",
    "extractors/test_every_extractor.py",
    "stores/test_interruption.py",
    "pipelines/test_train_commonsense.py",
    "pipelines/test_quarantine.py",
)


def pytest_collection_modifyitems(items):
    def rank(item):
        path = item.path.relative_to(TESTS).as_posix()
        return next((n for n, name in enumerate(LONGEST) if path.startswith(name)), len(LONGEST))

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadfile` the flows go to one process together, for they share a server."""
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class FlowsTogether(LoadFileScheduling):
        def _split_scope(self, nodeid):
            folder, flows, _ = nodeid.partition("pipelines/flows/")
            return folder + flows if flows else super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # keeps the order of files that is made above
    return FlowsTogether(config, log)
