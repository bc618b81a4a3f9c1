"""`python -m benchmarks [NAME ...]`: runs the named benchmarks, or all of them."""

import importlib
import pkgutil
import sys

import benchmarks


def main() -> None:
    """Runs them one after the other; each prints its own table."""
    known = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name[0] != "_"]
    unknown = set(sys.argv[1:]) - set(known)
    if unknown:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in sys.argv[1:] or known:
        importlib.import_module(f"benchmarks.{name}").run()


if __name__ == "__main__":
    main()
