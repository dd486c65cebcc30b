"""What the workflows name is there: they run elsewhere, and nobody sees here that they do not."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_paths_and_targets_exist(workflow: Path) -> None:
    text = re.sub(r"^\s*#.*", "", workflow.read_text(), flags=re.MULTILINE)
    paths = re.findall(r"(?<![\w/.-])(?:tests|tools|native|examples|benchmarks|src)/[\w/.-]+", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"run: make ([\w-]+)", text)) <= set(targets)


def test_there_are_workflows() -> None:
    assert {path.name for path in WORKFLOWS} >= {"checks.yml", "wheels.yml"}
