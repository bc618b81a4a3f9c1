"""A commit killed, failed or cut from power at every step is done as a whole or not at all."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from vlpipe.stores import FeatureStore, local_storage
from vlpipe.stores.errors import StoreUnwritable, UsageError
from vlpipe.stores.storage import open_storage

OLD, NEW = ["a", "b"], ["c", "d"]
KILLED = 9


def _work(url, samples, definitions, checkpoint=False):
    """The command that is interrupted, and run again afterwards."""
    store = FeatureStore.open(url)
    with store.writer(definitions) as writer:
        for video_id in NEW:
            writer.add(video_id, {d.name: samples.rows(d, video_id) for d in definitions})
        writer.fail("broken", None, "decode", "no frames")
    if checkpoint:
        store.checkpoint()


def _check_before_or_after(url, samples, definitions):
    """Returns whether the commit is there; checks that the store is whole either way."""
    store = FeatureStore.open(url)
    is_after = store.version >= 2
    samples.check(store, OLD + NEW if is_after else OLD, *definitions)
    assert store.failed().num_rows == (len(definitions) if is_after else 0)
    assert store.verify().problems == []
    return is_after


def _check_rerun(url, samples, definitions):
    _work(url, samples, definitions)
    assert _check_before_or_after(url, samples, definitions)


@pytest.fixture
def definitions(samples):
    return [samples.rgb]


@pytest.fixture
def template(tmp_path, samples, definitions):
    store = FeatureStore.create(tmp_path / "template")
    samples.write(store, OLD, *definitions)
    return Path(store.url)


def _copy(template, number):
    target = template.parent / f"run-{number}"
    shutil.copytree(template, target)
    return str(target)


def _count_steps(template, samples, definitions, watch_os):
    watched = watch_os()
    _work(_copy(template, "count"), samples, definitions, checkpoint=True)
    return watched.count


def _no_sync(name):
    """Death and errors of a process do not ask what is on the disk already: saves time."""
    return (lambda descriptor: None) if name == "fsync" else None


@pytest.mark.parametrize(
    ("names", "stride", "is_torn"),
    [(["rgb"], 2, False), (["rgb"], 3, True), (["rgb", "audio"], 7, False)],
    ids=["one feature", "half a write arrives", "two features"],
)
@pytest.mark.slow
def test_killed_at_every_step(tmp_path, samples, watch_os, run_in_child, names, stride, is_torn):
    definitions = [getattr(samples, name) for name in names]
    template = tmp_path / "template"
    samples.write(FeatureStore.create(template), OLD, *definitions)
    num_steps = _count_steps(template, samples, definitions, watch_os)
    assert num_steps > 80 * len(names)
    outcomes = []
    for step in range(1, num_steps + 1, stride):

        def kill(number, name, arguments, step=step):
            if number < step:
                return _no_sync(name)
            if is_torn and name == "write":  # half of it arrives
                os.write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            os._exit(KILLED)

        url = _copy(template, step)

        def child(url=url, kill=kill):
            watch_os(kill)
            _work(url, samples, definitions, checkpoint=True)

        assert run_in_child(child) == KILLED
        outcomes.append(_check_before_or_after(url, samples, definitions))
        if step % 8 == 0 or outcomes[-2:] == [False, True]:
            _check_rerun(url, samples, definitions)
        shutil.rmtree(url)
    assert outcomes == sorted(outcomes)  # first always before, then always after
    assert set(outcomes) == {False, True}


@pytest.mark.parametrize("is_full", [True, False], ids=["disk full", "other errors"])
@pytest.mark.slow
def test_failing_at_every_step(template, samples, definitions, watch_os, is_full):
    num_steps = _count_steps(template, samples, definitions, watch_os)
    for step in range(1, num_steps + 1):
        url = _copy(template, step)
        number = errno.ENOSPC if is_full else (errno.EIO, errno.EACCES)[step % 2]

        def fail(count, name, arguments, step=step, number=number):
            # A full disk stays full; other errors come once.
            is_hit = count >= step if is_full else count == step
            if is_hit and name not in ("unlink", "rmdir"):
                raise OSError(number, os.strerror(number))
            return _no_sync(name)

        watch_os(fail)
        # Where only tidying up fails, nothing is raised.
        raised = _error_of(lambda url=url: _work(url, samples, definitions, checkpoint=True))
        if raised is not None:
            assert os.strerror(number) in str(raised)
            assert url in str(raised)
            assert raised.hint
        watch_os()
        if _check_before_or_after(url, samples, definitions):
            assert step > 40  # the entry was there before the failure
        if step % 8 == 0:
            _check_rerun(url, samples, definitions)
        shutil.rmtree(url)


def _error_of(work):
    try:
        work()
    except StoreUnwritable as error:
        return error
    return None


def test_short_writes_are_completed(template, samples, definitions, watch_os):
    def shorten(count, name, arguments):
        if name not in ("write", "pwrite") or len(arguments[1]) < 2:
            return None
        real = getattr(os, name)
        return lambda fd, data, *rest: real(fd, bytes(data)[: max(len(data) // 3, 1)], *rest)

    watch_os(shorten)
    _work(str(template), samples, definitions, checkpoint=True)
    watch_os()
    assert _check_before_or_after(str(template), samples, definitions)


@pytest.mark.parametrize(
    ("number", "has_effect"),
    [
        (errno.ESTALE, True),
        (errno.ESTALE, False),
        (errno.ETIMEDOUT, True),
        (errno.ETIMEDOUT, False),
        (errno.EEXIST, True),
    ],
)
def test_lost_reply_of_link(template, samples, definitions, watch_os, number, has_effect):
    """Over NFS the reply can be lost after the link was made; the client's retry says EEXIST."""

    def lose(count, name, arguments):
        if name == "link":
            if has_effect:
                os.link(*arguments)
            raise OSError(number, os.strerror(number))

    watch_os(lose)
    if has_effect:
        _work(str(template), samples, definitions)
    else:
        with pytest.raises(StoreUnwritable, match="log/"):
            _work(str(template), samples, definitions)
    watch_os()
    assert _check_before_or_after(str(template), samples, definitions) is has_effect
    _check_rerun(str(template), samples, definitions)


def test_without_hard_links(template, samples, definitions, watch_os):
    def refuse(count, name, arguments):
        if name == "link":
            raise OSError(errno.EPERM, "no hard links here")

    watch_os(refuse)
    _work(str(template), samples, definitions)
    assert _check_before_or_after(str(template), samples, definitions)
    assert not FeatureStore.open(template).verify().leftovers
    storage = open_storage(template)  # and it never overwrites
    assert not storage.create("log/00000000000000000001.json", b"other bytes")


def test_without_exclusive_creation(tmp_path, samples, watch_os, monkeypatch):
    """Refused, unless one process at a time writes; this is noted in the store."""

    def refuse(count, name, arguments):
        if name == "link":
            raise OSError(errno.EPERM, "no hard links here")

    def cannot(source, target):
        raise OSError(errno.EOPNOTSUPP, "nor exclusive renames")

    watch_os(refuse)
    monkeypatch.setattr(local_storage, "rename_if_absent", cannot)
    with pytest.raises(StoreUnwritable, match="single_writer=True"):
        FeatureStore.create(tmp_path / "store")
    url = tmp_path / "other"
    FeatureStore.create(url, single_writer=True)
    handles = [FeatureStore.open(url) for _ in range(2)]
    for number, video_id in enumerate("abcd"):  # in turn, and each finds what the other did
        samples.write(handles[number % 2], [video_id], samples.rgb)
    samples.check(FeatureStore.open(url), list("abcd"), samples.rgb)
    assert FeatureStore.open(url).verify().problems == []
    with pytest.raises(UsageError, match="already"):
        FeatureStore.create(url, single_writer=True)


class PowerCut:
    """A model of a disk: what is surely there after a loss of power, at each moment.

    Data count from the fsync of their file on, names from the fsync of their folder on.
    """

    def __init__(self, root):
        self._root = root
        self._paths = {}  # descriptor -> path
        self._files = {}  # path -> bytes on disk
        self._names = set()  # files and folders whose name is on disk
        for path in Path(root).rglob("*"):
            self._names.add(str(path))
            if path.is_file():
                self._files[str(path)] = path.read_bytes()

    def after(self, name, arguments, result):
        if name == "open":
            self._paths[result] = arguments[0]
        elif name == "fsync":
            path = str(Path(f"/proc/self/fd/{arguments[0]}").readlink())
            if Path(path).is_dir():
                inside = {str(p) for p in Path(path).iterdir()}
                self._names = {n for n in self._names if str(Path(n).parent) != path} | inside
            else:
                self._files[path] = Path(path).read_bytes()
        elif name == "link":  # the second name of a file has the data of the first
            self._files[arguments[1]] = self._files.get(arguments[0], b"")

    def build(self, target, keeps_unsynced_names):
        for path in sorted(Path(self._root).rglob("*")):
            if not keeps_unsynced_names and not self._is_named(path):
                continue
            copy = Path(target) / path.relative_to(self._root)
            if path.is_dir():
                copy.mkdir(parents=True)
            else:
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(self._files.get(str(path), b""))

    def _is_named(self, path):
        while str(path) != self._root:
            if str(path) not in self._names:
                return False
            path = path.parent
        return True


@pytest.mark.slow
@pytest.mark.parametrize("keeps_unsynced_names", [False, True])
def test_power_cut_at_every_step(template, samples, definitions, watch_os, keeps_unsynced_names):
    url = _copy(template, "power")
    disk = PowerCut(url)
    outcomes = []

    def check():
        target = f"{url}-after-{len(outcomes)}"
        disk.build(target, keeps_unsynced_names)
        outcomes.append(_check_before_or_after(target, samples, definitions))
        shutil.rmtree(target)

    def step(count, name, arguments):
        if name == "write" and count % 4:  # unsynced data are gone anyway: a sample will do
            return None

        def call(*arguments, **keywords):
            result = getattr(os, name)(*arguments, **keywords)
            disk.after(name, arguments, result)
            active.append(1)
            if len(active) == 1:
                check()
            active.pop()
            return result

        return call

    active = []
    watch_os(step)
    _work(url, samples, definitions)
    watch_os()
    assert outcomes == sorted(outcomes)
    assert outcomes[-1]  # what was reported as committed is there
    assert not outcomes[0]
