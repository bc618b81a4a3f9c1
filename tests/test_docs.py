"""The pages: commands and options exist, Python compiles, links lead somewhere."""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from vlpipe.pipelines.cli import app

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def command_of(words):
    """The command that the words name, and what follows it."""
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, f"there is no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def shown_commands():
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            found = re.match(r"(?:    |\$ )vlpipe (.+)", line)
            if found:
                yield pytest.param(found[1].split(" #")[0], id=f"{page.name}: {found[1][:60]}")


@pytest.mark.parametrize("line", list(shown_commands()))
def test_commands_and_options_exist(line):
    command, rest = command_of(shlex.split(line))
    options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    for word in rest:
        if word.startswith("--"):
            assert word.partition("=")[0] in options | {"--help"}, word


def python_blocks():
    for page in PAGES:
        for n, block in enumerate(
            re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)
        ):
            yield pytest.param(block, id=f"{page.name} {n}")


@pytest.mark.parametrize("block", list(python_blocks()))
def test_python_compiles_and_imports_what_exists(block):
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("vlpipe"):
            exec(compile(ast.Module([node], []), "<page>", "exec"), {})


def shell_blocks():
    for page in PAGES:
        for n, block in enumerate(re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), re.S)):
            yield pytest.param(block, id=f"{page.name} {n}")


@pytest.mark.parametrize("block", list(shell_blocks()))
def test_scripts_are_shell_and_name_commands_and_options_that_exist(block):
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line in re.findall(r"\bvlpipe (.+)", block.replace("\\\n", " ")):
        command, rest = command_of(shlex.split(line.split('"')[0] if "--wrap" in block else line))
        options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        assert {word for word in rest if word.startswith("--")} <= options, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
