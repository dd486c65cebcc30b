"""The search for a size or a PSNR: on functions with a known answer, and with a model."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latens import format as ltn
from latens.codec import ImageCodec, Target
from latens.codec.target import search
from latens.errors import TargetError
from latens.io import Image
from latens.metrics import ssimulacra2
from latens.runtime.released import ReleasedPictures

TOP = 65535


def counted(function: Callable[[int], float]) -> tuple[Callable[[int], tuple[float, int]], list[int]]:
    calls: list[int] = []

    def measure(level: int) -> tuple[float, int]:
        assert 0 <= level <= TOP
        calls.append(level)
        return function(level), level

    return measure, calls


@given(
    st.floats(0.5, 5.0), st.floats(0.5, 2.0), st.floats(0.0, 1.0), st.integers(200, 10**6), st.integers(0, 80)
)
def test_search_finds_what_is_reachable(
    span: float, bend: float, where: float, smallest: int, overhead: int
) -> None:
    """Sizes that grow exponentially in a bent quality, in whole bytes, as those of files do."""

    def size(level: int) -> float:
        return overhead + math.floor(smallest * math.exp(span * (level / TOP) ** bend))

    measure, calls = counted(size)
    target = Target(bytes=size(round(where * TOP)))
    level = search(measure, TOP, target)
    assert target.low <= size(level) <= target.high
    assert len(calls) <= 20


def test_search_takes_few_calls() -> None:
    """On a rate curve like that of the default model: five tries or less."""
    for size in (1500, 4000, 10_000, 30_000):
        measure, calls = counted(lambda level: 1000 * 40 ** (level / TOP))
        search(measure, TOP, Target(bytes=size))
        assert len(calls) <= 5


@pytest.mark.parametrize("size", [1, 10, 10**9])
def test_out_of_reach_says_what_can_be_had(size: int) -> None:
    """The nearest end of the range is named, with its quality."""
    measure, _ = counted(lambda level: 1000.0 + level)
    end = "66,535 bytes at quality 100" if size > 1000 else "1,000 bytes at quality 0"
    with pytest.raises(TargetError, match=end):
        search(measure, TOP, Target(bytes=size))


def test_sizes_are_told_in_bits_per_pixel_if_they_were_asked_for_so() -> None:
    measure, _ = counted(lambda level: 1000.0 + level)
    message = (
        r"^0\.5 bits per pixel cannot be reached with this image; closest: 2 bits per pixel at quality 0$"
    )
    with pytest.raises(TargetError, match=message):
        search(measure, TOP, Target(bytes=250.0, pixels=4000))
    with pytest.raises(TargetError, match=r"got -0\.5$"):
        Target(bytes=-250.0, pixels=4000)


def test_a_jump_over_the_target_is_an_error() -> None:
    """Where no level comes close enough, both neighbours are named."""
    measure, calls = counted(lambda level: 100.0 if level < 40_000 else 200.0)
    with pytest.raises(TargetError, match=r"100 bytes at quality .* and 200 bytes at quality"):
        search(measure, TOP, Target(bytes=150))
    assert len(calls) <= 20


@pytest.mark.parametrize("bad", [{}, {"bytes": 10, "psnr": 30}, {"bytes": 0}, {"psnr": math.nan}])
def test_one_positive_target(bad: dict[str, float]) -> None:
    """None, two, zero and NaN are refused."""
    with pytest.raises(TargetError, match="one target"):
        Target(**bad)


@pytest.mark.parametrize("channels", [1, 3])
def test_files_meet_their_target(tiny_model: ReleasedPictures, channels: int) -> None:
    """Real files: not larger than asked for and within 1 %, or within 0.05 dB or 0.3 points as decoded."""
    rng = np.random.default_rng(4)
    smooth = rng.normal(size=(9, 11, channels)).repeat(16, 0).repeat(16, 1)
    pixels = np.clip(128 + 40 * smooth + 12 * rng.normal(size=smooth.shape), 0, 255).astype(np.uint8)
    image, codec = Image(pixels), ImageCodec(tiny_model)
    low, high = (codec.encode(image, q) for q in (0, 100))

    size = (len(low) + len(high)) // 2
    data = codec.encode_to(image, Target(bytes=size))
    assert 0.99 * size - 8 <= len(data) <= size

    def psnr(data: bytes) -> float:
        decoded = codec.decode(ltn.read(data))[0].pixels.astype(float)
        return 10 * math.log10(255**2 / np.mean((decoded - pixels) ** 2))

    quality = ltn.read_header(data).quality / TOP * 100
    assert codec.encode(image, quality) == data
    wanted = psnr(data)
    assert psnr(codec.encode_to(image, Target(psnr=wanted))) == pytest.approx(wanted, abs=0.051)

    def score(data: bytes) -> float:
        pair = (pixels, codec.decode(ltn.read(data))[0].pixels)
        return ssimulacra2(*(np.repeat(p, 4 - channels, axis=2)[..., :3] for p in pair))

    ends = score(low), score(high)
    wanted = ends[0] + 0.7 * (ends[1] - ends[0])
    assert score(codec.encode_to(image, Target(ssimulacra2=wanted))) == pytest.approx(wanted, abs=0.3)
    with pytest.raises(TargetError, match=r"SSIMULACRA2 99.90 cannot be reached .* closest: SSIMULACRA2"):
        codec.encode_to(image, Target(ssimulacra2=99.9))


def test_scores_that_make_no_target(tiny_model: ReleasedPictures) -> None:
    with pytest.raises(TargetError, match="no scores above 100, got 101"):
        Target(ssimulacra2=101)
    with pytest.raises(TargetError, match="less than 8 pixels"):
        ImageCodec(tiny_model).encode_to(Image(np.zeros((7, 64, 3), np.uint8)), Target(ssimulacra2=70))


def test_a_score_of_sixteen_bits_with_alpha(tiny_model: ReleasedPictures) -> None:
    """Alpha has no part in it, and depth makes no difference."""
    rng = np.random.default_rng(0)
    eight = np.clip(128 + 30 * rng.normal(size=(8, 8, 3)).repeat(12, 0).repeat(12, 1), 0, 255).astype(
        np.uint8
    )
    codec = ImageCodec(tiny_model)
    deep = Image(eight.astype(np.uint16) * 257, np.full(eight.shape[:2], 7, np.uint16), bit_depth=16)

    def score(quality: float) -> float:
        return ssimulacra2(eight, codec.decode(codec.encode(Image(eight), quality))[0].pixels)

    wanted = (score(40) + score(100)) / 2
    decoded = codec.decode(codec.encode_to(deep, Target(ssimulacra2=wanted)))[0].pixels
    assert ssimulacra2(eight / 255, decoded / 65535) == pytest.approx(wanted, abs=0.31)
