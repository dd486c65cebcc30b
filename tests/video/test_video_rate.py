"""Bitrates in two passes: what a budget does with frames of known growth, and files of small weights."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from clips import clip, info, save_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from test_conditional import network

from latens import zoo
from latens.codec.rate import Budget, FirstPass, first_pass
from latens.codec.structure import Structure
from latens.codec.video import VideoCodec
from latens.errors import TargetError, VideoError

STRUCTURE = Structure(6, 3)


def spent(
    budget: Budget, frames: dict[int, int], keys: frozenset[int], growth: tuple[float, float], noise: float
) -> int:
    """Bytes of an encoder whose frames grow in their own way, and not evenly."""
    random = np.random.default_rng(0)
    total = 0
    for number, size in frames.items():
        far = budget.quality - 50
        jitter = math.exp(noise * random.standard_normal())
        found = round(size * math.exp(growth[number in keys] * far + 0.0001 * far * far) * jitter)
        budget.spend(number, found)
        total += found
    return total


@given(st.floats(0.015, 0.05), st.floats(0.02, 0.06), st.floats(0.3, 4.0))
@settings(max_examples=40, deadline=None)
def test_a_budget_lasts_whatever_frames_are_like(others: float, key: float, share: float) -> None:
    """Within 2 % over 120 frames, of which no frame is known to better than 10 %."""
    keys = frozenset(range(0, 120, 12))
    frames = {number: 9_000 if number in keys else 400 + 900 * (number % 4 == 0) for number in range(120)}
    wanted = share * sum(frames.values())
    total = spent(Budget(frames, keys, 50.0, wanted), frames, keys, (others, key), 0.1)
    low, high = (
        sum(size * math.exp((key if n in keys else others) * far + 0.25) for n, size in frames.items())
        for far in (-50.0, 50.0)
    )
    if 1.1 * low < wanted < 0.9 * high:
        assert abs(total / wanted - 1) < 0.02


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> VideoCodec:
    path = tmp_path_factory.mktemp("video") / "video.safetensors"
    zoo.save(network(), path, "tiny-video")
    return VideoCodec(path)


@pytest.fixture(scope="module")
def known(codec: VideoCodec) -> FirstPass:
    about = info(64, 64)
    return first_pass(codec, about, clip(about, 50), STRUCTURE)


@pytest.mark.parametrize("share", [0.7, 1.6])
def test_files_come_to_what_is_wanted(codec: VideoCodec, known: FirstPass, share: float) -> None:
    about = info(64, 64)
    wanted = share * 8e-3 * known.size / known.seconds
    budget = known.budget(wanted)
    file = io.BytesIO()
    found = list(codec.encode(about, clip(about, 50), file, structure=STRUCTURE, budget=budget))
    assert {frame.number for frame in found} == set(known.frames)
    assert known.seconds == 2.0
    assert abs(file.tell() / (125 * wanted * known.seconds) - 1) < 0.02
    known.check(wanted, file.tell(), budget.quality)


def test_what_cannot_be_reached_is_told(known: FirstPass) -> None:
    known.check(100.0, 25_100, 0.0)
    known.check(100.0, 12_000, 60.0)  # few frames come as near as they can
    with pytest.raises(TargetError, match="120 kbit/s is the least, at quality 0"):
        known.check(100.0, 30_000, 0.0)
    with pytest.raises(TargetError, match="80 kbit/s is the most, at quality 100"):
        known.check(100.0, 20_000, 100.0)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(TargetError, match="above 0"):
            known.budget(bad)


def test_weights_of_one_quality_have_no_bitrates(tmp_path: Path) -> None:
    codec = VideoCodec(save_weights(tmp_path / "flow.safetensors"))
    with pytest.raises(VideoError, match="one quality"):
        first_pass(codec, info(), clip(info(), 1), STRUCTURE)
