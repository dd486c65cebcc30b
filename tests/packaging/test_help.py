"""Help texts of man-page grade, and completion by the shell."""

import os
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest

from latens.cli import app


def leaves(command: Any, path: str = "") -> dict[str, Any]:
    """All commands, also those of groups, by what is typed after ``latens``."""
    found: dict[str, Any] = {}
    for name, child in command.commands.items():
        inner = f"{path} {name}".strip()
        found |= leaves(child, inner) if hasattr(child, "commands") else {inner: child}
    return found


COMMANDS = leaves(app._command())


def examples(text: str) -> list[str]:
    """What stands below the heading, one command a line."""
    heading = re.search(r"^ *Examples?:$", text, re.M)
    assert heading is not None, "there is no example"
    return [line.strip() for line in text[heading.end() :].splitlines() if line.strip()]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_examples_that_exist(name: str) -> None:
    command = COMMANDS[name]
    options = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    lines = examples(command.help)
    assert any(line.startswith(f"latens {name} ") or line == f"latens {name}" for line in lines)
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "latens"
        other = (
            " ".join(words[1 : 3 if f"{words[1]} {words[2]}" in COMMANDS else 2]) if words[2:] else words[1]
        )
        assert other in COMMANDS, line
        if other == name:
            used = {word.split("=")[0] for word in words[2:] if word.startswith("-") and word != "-"}
            assert used <= options, line


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_parameter_is_explained(name: str) -> None:
    command = COMMANDS[name]
    summary = command.help.strip().splitlines()[0]
    assert summary.endswith(".")
    assert len(summary) <= 100
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert parameter.help.endswith((".", ")")), parameter.help


def complete(line: str) -> set[str]:
    """What fish would be offered for the last word."""
    asked = {
        "_LATENS_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": line,
    }
    done = subprocess.run(
        [sys.executable, "-m", "latens"],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return {offer.split("\t")[0] for offer in done.stdout.splitlines()}


def test_the_shell_completes_commands_and_options() -> None:
    assert complete("latens ") >= {name.split()[0] for name in COMMANDS}
    assert complete("latens deco") == {"decode"}
    assert complete("latens encode --target-p") == {"--target-psnr"}


def test_completion_can_be_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--help"]) == 0
    assert "--install-completion" in capsys.readouterr().out
