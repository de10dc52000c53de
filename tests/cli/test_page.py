"""The page of the command line says what the commands do."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from diffusion_classifier.cli import Exit, app
from diffusion_classifier.cli.commands.info import describe
from diffusion_classifier.cli.outputs import KEYS
from diffusion_classifier.evaluation import FIELDS

PAGES = {
    name: (Path(__file__).parents[2] / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("shell", "scale", "first_hour")
}
COMMANDS = get_command(app).commands


def table(heading):
    """First cells of the table that follows a heading row."""
    rows = PAGES["shell"].split(heading)[1].split("\n\n")[0].splitlines()[1:]
    return [row.split("|")[1].strip().strip("`") for row in rows if not row.startswith("|---")]


def test_its_tables_are_those_of_the_code():
    assert table("| exit code | meaning |") == [str(int(code)) for code in Exit]
    assert tuple(table("| key | value |")) == KEYS
    assert set(table("| command | question |")) == set(COMMANDS)
    without = {"predict", "convert", "demo"}
    assert set(table("| command | keys of `summary` |")) == set(COMMANDS) - without
    assert [name for name in FIELDS if f"`{name}`" not in PAGES["shell"]] == []


def test_the_keys_of_info_are_listed():
    from diffusion_classifier.backends.resolve import resolve_backend

    (line,) = [row for row in PAGES["shell"].splitlines() if row.startswith("| `info` | `pipe")]
    assert re.findall(r"`(\w+)`", line)[1:] == list(describe(resolve_backend(None, "cpu", "auto")))


def lines():
    """Command lines of the pages."""
    for name, page in PAGES.items():
        for line in page.replace("\\\n", " ").splitlines():
            for found in re.findall(r"(?<!`)diffusion-classifier ([a-z].*)", line):
                yield pytest.param(found, id=f"{name}: {found[:60]}")


@pytest.mark.parametrize("line", list(lines()))
def test_every_command_line_is_understood(line):
    command, *arguments = shlex.split(
        line.split(" || ")[0].split(" > ")[0].rstrip("'"), comments=True
    )
    context = typer.Context(get_command(app))
    arguments = ["7" if argument.startswith("$((") else argument for argument in arguments]
    if "--config" in arguments:
        return  # reads a file that the run before has written
    COMMANDS[command].make_context(command, arguments, parent=context)
