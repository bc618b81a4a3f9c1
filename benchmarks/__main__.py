"""`python -m benchmarks [NAME ...] [--OPTION ...]`: runs the named benchmarks, or all of them.

Options go to the benchmarks that are named: `python -m benchmarks store --small`.
"""

import importlib
import pkgutil
import sys

import benchmarks


def main() -> None:
    """Runs them one after the other; each prints its own table."""
    known = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name[0] != "_"]
    options = [word for word in sys.argv[1:] if word.startswith("-")]
    names = [word for word in sys.argv[1:] if not word.startswith("-")]
    unknown = set(names) - set(known)
    if unknown or (options and not names):
        what = f"no benchmark {', '.join(sorted(unknown))}" if unknown else "no benchmark named"
        sys.exit(f"{what}; there are {', '.join(known)}")
    for name in names or known:
        run = importlib.import_module(f"benchmarks.{name}").run
        run(options) if options else run()


if __name__ == "__main__":
    main()
