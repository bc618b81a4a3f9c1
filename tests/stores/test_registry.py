"""Things that files of a folder register: found by name, and by the file of their name alone."""

import sys

import pytest

from vlpipe.stores.errors import UsageError
from vlpipe.stores.registry import Registry

FILE = """
from things import registry


class {name}:
    pass


for known in {known}:
    registry.add(known, {name})
"""


@pytest.fixture
def things(tmp_path, monkeypatch):
    """A package `things`: `ball` and `box` register their own names, `box` another one as well."""
    folder = tmp_path / "things"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from vlpipe.stores.registry import Registry\nregistry = Registry('thing', 'things')\n"
    )
    (folder / "ball.py").write_text(FILE.format(name="Ball", known=("ball",)))
    (folder / "box.py").write_text(FILE.format(name="Box", known=("box", "crate")))
    (folder / "_shared.py").write_text("raise ImportError('imported by the search')")
    monkeypatch.syspath_prepend(tmp_path)
    import things

    yield things.registry
    for name in [name for name in sys.modules if name.partition(".")[0] == "things"]:
        del sys.modules[name]


def test_the_file_of_a_name_is_imported_alone(things: Registry[type]):
    assert things.find("ball").__name__ == "Ball"
    assert "things.box" not in sys.modules
    assert things.find("crate") is things.find("box")
    assert list(things.all()) == ["ball", "box", "crate"]


@pytest.mark.parametrize("name", ["bal", "__init__", "_shared", "", "../ball", "things"])
def test_what_is_not_there(things: Registry[type], name):
    with pytest.raises(UsageError, match="there is no thing") as caught:
        things.find(name)
    assert caught.value.hint == "the things: ball, box, crate"
    assert ("nearest: ball" in str(caught.value)) == ("bal" in name)


def test_a_name_is_given_once(things: Registry[type]):
    things.find("ball")
    with pytest.raises(ValueError, match=r"'ball' is registered twice: things\.ball and builtins"):
        things.add("ball", int)
