"""The same seed gives the same weights as in CompressAI, and leaves the generator where that does."""

import json
from pathlib import Path

import pytest
from make_initial import SIZES, first_values

from latens import models

EXPECTED = json.loads((Path(__file__).parents[1] / "vectors/models/initial_weights.json").read_text())


@pytest.mark.parametrize("name", SIZES)
def test_of_a_seed(name):
    assert first_values(getattr(models, name), SIZES[name]) == pytest.approx(EXPECTED[name], abs=2e-6)
