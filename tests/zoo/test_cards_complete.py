"""Cards say what is true of the weights, not what somebody meant to fill in."""

import re

import pytest

from latens.zoo import ModelCard, cards


@pytest.mark.parametrize("card", [*cards(), *cards("video")], ids=lambda card: card.id)
def test_no_placeholders(card: ModelCard) -> None:
    """Every figure is given, and every text is one."""
    assert re.fullmatch(r"[0-9a-f]{64}", card.sha256)
    assert card.parameters > 0
    assert min(card.mac_per_pixel) > 0
    low, high = card.quality_range
    assert 0 < low < high
    assert min(len(text) for text in (card.summary, card.training, card.licence, *card.papers)) > 5
    assert "TRAINING" not in card.training
