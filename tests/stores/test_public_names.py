"""What the room offers, and that looking at it is cheap."""

import subprocess
import sys

from vlpipe import stores


def test_names_exist():
    assert stores.__all__ == sorted(stores.__all__)
    for name in stores.__all__:
        assert getattr(stores, name).__doc__


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, vlpipe.stores;"
        "print(*{'torch', 'zarr', 'dask', 'pyarrow', 'prefect'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
