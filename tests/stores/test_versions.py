"""Versions of a store by number and by name."""

import pytest

from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import UsageError
from vlpipe.stores.references import Tag


def test_snapshots(any_store, samples):
    samples.write(any_store, ["a"], samples.rgb)
    reading = FeatureStore.open(any_store.url)
    old_reader = reading["rgb"]
    samples.write(any_store, ["b"], samples.rgb)
    samples.check(reading, ["a"], samples.rgb)
    assert reading.refresh() == 2
    samples.check(reading, ["a", "b"], samples.rgb)
    assert old_reader.ids() == ["a"]
    past = FeatureStore.open(any_store.url, 1)
    samples.check(past, ["a"], samples.rgb)
    with pytest.raises(UsageError, match="only reads"):
        past.writer([samples.rgb])
    with pytest.raises(UsageError, match="has no version 7; the newest is 2"):
        FeatureStore.open(any_store.url, 7)
    past.tag("baseline")
    any_store.checkpoint()
    assert FeatureStore.open(any_store.url, "baseline").version == 1
    with pytest.raises(UsageError, match=r"'baseline' of .* names version 1 already"):
        any_store.tag("baseline")
    with pytest.raises(UsageError, match=r"no tag 'nothing' \(baseline\)"):
        FeatureStore.open(any_store.url, "nothing")
    any_store.tag("a-later_one.2", note="both videos")
    assert any_store.tags() == [Tag("a-later_one.2", 2, "both videos"), Tag("baseline", 1, None)]
    any_store.tag("a-later_one.2", note="both videos")
    any_store.tag("a-later_one.2")
    with pytest.raises(UsageError, match="names version 2 already, with the note 'both videos'"):
        any_store.tag("a-later_one.2", note="another note")
    any_store.untag("baseline")
    assert [tag.name for tag in past.tags()] == ["a-later_one.2"]
    any_store.tag("baseline")
    assert FeatureStore.open(any_store.url, "baseline").version == 2
    for work in (any_store.tag, any_store.untag, any_store.pin):
        for name in ("", "../baseline", ".hidden", "a b", "x" * 101):
            with pytest.raises(UsageError, match="is not valid"):
                work(name)
    with pytest.raises(UsageError, match="would look like a version"):
        any_store.tag("17")
    with pytest.raises(UsageError, match="no tag 'nothing'"):
        any_store.untag("nothing")


def test_names_are_text(any_store, samples):
    samples.write(any_store, ["a"], samples.rgb)
    with pytest.raises(TypeError, match="the name of a feature is text, found 5"):
        any_store[5]
    with pytest.raises(TypeError, match="a video id is text, found 5"):
        any_store.delete([5])
