"""Ctrl-C while the command line is still loading: the process ends, and not with a traceback."""

import signal
import subprocess
import sys

import pytest

# Sends SIGINT at the moment when a module is about to be imported.
PRESS = """
import os, signal, sys
class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Press())
from vlpipe.pipelines.cli import main
sys.argv = ["vlpipe", *{arguments!r}]
main()
"""


def press_at(module, *arguments):
    return subprocess.run(
        [sys.executable, "-c", PRESS.format(module=module, arguments=arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "module",
    ["vlpipe.pipelines.cli.commands", "typer", "vlpipe.pipelines.cli.weights", "rich.table"],
)
def test_while_commands_are_imported_the_process_just_ends(module):
    done = press_at(module, "weights", "ls")
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""
    assert done.stdout == ""


def test_while_a_command_imports_its_libraries_it_says_so():
    done = press_at("safetensors", "weights", "ls")
    assert done.returncode == 130
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr


def test_next_to_nothing_is_imported_before_ctrl_c_is_seen_to():
    code = "import sys, vlpipe.pipelines.cli\nprint(len([m for m in sys.modules if 'typer' in m]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_an_undisturbed_command_ends_as_before():
    done = press_at("no.such.module", "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("vlpipe ")
