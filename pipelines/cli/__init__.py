"""The command `vlpipe`: how a process runs it, and how errors become exit codes.

The commands are in `commands`. Next to nothing is imported before `main` has seen to Ctrl-C, which
would otherwise end in a traceback out of whatever import it met.
"""

import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vlpipe.pipelines.cli.commands import app

__all__ = ["app", "main", "run"]


def __getattr__(name: str) -> object:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vlpipe.pipelines.cli.commands import app

    return app


def main() -> None:
    """Runs the command line of this process and exits with 0, 1, 2, 3, 4 or 130 (see README)."""
    # Before a command runs and after it has run, Ctrl-C ends the process without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of `vlpipe` with these arguments."""
    from vlpipe.pipelines.cli.commands import app
    from vlpipe.pipelines.cli.interruption import (
        INTERRUPTED_EXIT_CODE,
        Interrupted,
        raise_interrupted,
    )
    from vlpipe.pipelines.cli.output import fail
    from vlpipe.pipelines.settings import apply_torch_settings
    from vlpipe.stores.errors import VlpipeError

    apply_torch_settings()
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, raise_interrupted)
        app(arguments)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    except VlpipeError as error:
        fail(error.message, error.hint)
        return error.exit_code
    except Interrupted as interrupted:
        fail("interrupted; what was committed is kept", str(interrupted))
        return INTERRUPTED_EXIT_CODE
    finally:
        signal.signal(signal.SIGINT, before)
    return 0
