"""What qualities mean: scales that invert, fit what was measured, and are refused when they are none."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImage

import tiny
from latens.codec import ImageCodec
from latens.errors import DatasetError, ModelError
from latens.evaluate.scale import fit_scale
from latens.io import Image
from latens.metrics import ssimulacra2
from latens.runtime.released import ReleasedPictures
from latens.runtime.scale import LINEAR, QualityScale


@given(st.floats(-60, 40), st.floats(50, 99), st.floats(0.3, 3.0), st.floats(0, 100))
def test_a_quality_is_the_score_where_scores_go(low: float, high: float, bend: float, quality: float) -> None:
    levels = np.linspace(0, 1, 14)
    scores = low + (high - low) * levels**bend
    scale = QualityScale.fitted(levels.tolist(), scores.tolist())
    assert (scale.level(0), scale.level(100)) == (0, 1)
    level = scale.level(quality)
    assert 0 <= level <= 1
    assert scale.quality(level) == pytest.approx(quality, abs=1e-6)
    first, last = scale.qualities[1], scale.qualities[-2]
    if first <= quality <= last:
        # Straight between knots of five qualities, against the measured points.
        assert np.interp(level, levels, scores) == pytest.approx(quality, abs=2.5)
    for knot in scale.qualities[1:-1]:
        assert np.interp(scale.level(knot), levels, scores) == pytest.approx(knot, abs=0.02)
    assert QualityScale.from_json(scale.to_json()) == scale


def test_a_score_that_falls_is_taken_for_noise() -> None:
    scale = QualityScale.fitted([0, 0.25, 0.5, 0.75, 1], [-10, 40, 39, 60, 60])
    assert scale.level(40) == pytest.approx(0.25)
    assert scale.level(50) == pytest.approx(0.5)
    assert scale.level(60) < scale.level(61) < 1


def test_the_range_beyond_what_is_reached_is_shared() -> None:
    scale = QualityScale.fitted([0, 0.5, 1], [20, 50, 82])
    assert scale.qualities == (0, *range(25, 85, 5), 100)
    assert 0 < scale.level(10) < scale.level(25) == pytest.approx(5 / 60, abs=1e-6)
    assert scale.level(80) < scale.level(90) < scale.level(100) == 1


def test_linear() -> None:
    assert [LINEAR.level(q) for q in (0, 37, 100)] == [0, 0.37, 1]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"qualities": [0, 100]}', '{"qualities": [0, 100], "levels": [0, 0.5]}',
        '{"qualities": [0, 50, 50, 100], "levels": [0, 0.1, 0.2, 1]}',
        '{"qualities": [0, 50, 100], "levels": [0, 1.5, 1]}',
        '{"qualities": [0, 100], "levels": [0, "1"]}', '{"qualities": [0, NaN, 100], "levels": [0, 0.5, 1]}',
        '{"qualities": 5, "levels": 5}',
    ],
)  # fmt: skip
def test_what_is_no_scale(text: str) -> None:
    with pytest.raises(ModelError, match="quality scale"):
        QualityScale.from_json(text)


@pytest.mark.parametrize("scores", [[1, 2, 3], [-50, -40, -30], [70, 60, 50], []])
def test_scores_that_fit_no_scale(scores: list[float]) -> None:
    levels = [0, 0.5, 1][: len(scores)]
    with pytest.raises(ModelError, match="quality scale"):
        QualityScale.fitted(levels, scores)


def test_fitting_measures_real_files(
    tiny_model: ReleasedPictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2):
        PilImage.fromarray(tiny.picture(260, 300, seed=seed)).save(tmp_path / f"{seed}.png")
    PilImage.fromarray(tiny.picture(40, 40)).save(tmp_path / "small.png")
    (tmp_path / "damaged.png").write_bytes(b"nothing")
    codec = ImageCodec(tiny_model)
    # A tiny model's pictures are ruins, whose scores no scale takes.
    monkeypatch.setattr("latens.evaluate.scale.ssimulacra2", lambda a, b: 0.5 * (ssimulacra2(a, b) + 160))
    found = fit_scale(codec, tmp_path, side=256, levels=(0.0, 0.5, 1.0))
    for level, score, bpp in zip(found.levels, found.scores, found.bpp, strict=True):
        scores, bits = [], []
        for seed in (1, 2):
            pixels = np.ascontiguousarray(tiny.picture(260, 300, seed=seed)[2:258, 22:278])
            data = codec.encode(Image(pixels), 100 * level)
            scores.append(0.5 * (ssimulacra2(pixels, codec.decode(data)[0].pixels) + 160))
            bits.append(len(data) / 8192)
        assert score == pytest.approx(np.mean(scores))
        assert bpp == pytest.approx(np.mean(bits))
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").unlink()
    with pytest.raises(DatasetError, match="256 pixels or more"):
        fit_scale(codec, tmp_path)
