"""What the tests of the extraction compare: contents of stores, failures of summaries."""

from vlpipe.stores import FeatureStore

SMALL = {"resnet18": {"resize": 40, "crop": 32}}


ROWS = {"gif0": 6, "gif1": 7, "gif2": 8, "gif3": 9, "sound": 63, "silent": 25}


def contents(url):
    """Everything that counts as equal between two stores."""
    with FeatureStore.open(url) as store:
        return {name: store.digest(name) for name in store.features}


def failed_ids(summary):
    return {failure.id for failure in summary.failed}
