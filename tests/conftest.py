"""Fixtures shared by the tests of the product: a tiny model of their own, so that shipped weights don't matter."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import tiny
from latens import compat
from latens.runtime.released import ReleasedPictures
from latens.zoo import load

# Machines that are busy with other work must not fail tests.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of the tiny model, which is called ``tiny-1``."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    tiny.save_weights(path)
    return path


@pytest.fixture(scope="session")
def tiny_model(tiny_weights: Path) -> ReleasedPictures:
    """The tiny model, loaded."""
    return load(tiny_weights)


@pytest.fixture(autouse=True)
def _without_compatibility() -> Iterator[None]:
    """A test that lets Latens stand in for CompressAI must not leave it so for others."""
    yield
    compat.uninstall()
