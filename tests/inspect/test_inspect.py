"""Inspections are compared with files as they are, with SciPy, and with sums done by hand."""

import json
import zlib
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy.stats import norm

import latens
import tiny
from latens import inspect, models
from latens.errors import (
    ImageError,
    ModelError,
    OutputError,
    ShapeError,
    UnavailableError,
    UnknownModelError,
)
from latens.inspect import Anatomy, ClassicSubject, LtnSubject, report
from latens.runtime.released import ReleasedPictures
from latens.zoo import DEFAULT_MODEL, save

PIXELS = tiny.picture(150, 200)

GOOGLE: tuple[tuple[Any, tuple[int, ...]], ...] = (
    (models.FactorizedPrior, (16, 24)),
    (models.ScaleHyperprior, (16, 24)),
    (models.MeanScaleHyperprior, (16, 24)),
    (models.JointAutoregressiveHierarchicalPriors, (16, 24)),
)


def mass(k: npt.NDArray[Any], mean: Any, scale: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Probability of the unit interval around k, without the cancellation of the far tail."""
    far = np.abs(k - mean)
    return np.asarray(norm.cdf((0.5 - far) / scale) - norm.cdf((-0.5 - far) / scale))


def spread(k: npt.NDArray[Any], scale: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same for the default model: of Gaussians whose scales are a fifth apart, together of the variance of one."""
    u = np.linspace(-5, 5, 101)
    weights = norm.pdf(u) / norm.pdf(u).sum()
    parts = (w * mass(k, 0.0, scale * np.exp(0.2 * v - 0.2**2)) for w, v in zip(weights, u, strict=True))
    return np.asarray(sum(parts))


def check_prices(bits: npt.NDArray[Any], probability: npt.NDArray[Any]) -> None:
    """Tables have 65,536 slots, at least one for each symbol: what is rare costs what they have for it."""
    expected = -np.log2(np.maximum(probability, 1e-12))
    common = expected < 10
    assert common.mean() > 0.9
    np.testing.assert_allclose(bits[common], expected[common], atol=0.04)
    assert (bits[~common] > 9.5).all()


def alive(model: Any, scale: float = 1.5) -> Any:
    """A model whose latents are a few steps large, and whose predicted scales fit them."""
    torch.manual_seed(7)
    with torch.no_grad():
        x = torch.from_numpy(PIXELS).permute(2, 0, 1)[None, :, :128, :192] / 255.0
        last = [m for m in model.g_a.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        last.weight.mul_(2.0 / model.g_a(x).std())
        layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
        names = ("entropy_parameters", "h_s")
        heads = [getattr(model, name) for name in names if hasattr(model, name)]
        heads += [
            m.entropy_parameters
            for m in model.modules()
            if hasattr(m, "context_prediction") and hasattr(m, "y")
        ]
        for head in heads[:1] if hasattr(model, "entropy_parameters") else heads:
            final = [m for m in head.modules() if m in layers][-1]
            size = final.bias.shape[0]
            final.bias[: size // 2 if size > 24 else size].fill_(scale)
    return model.eval()


@pytest.fixture(scope="module")
def ltn(tiny_model: ReleasedPictures) -> Anatomy:
    return LtnSubject(tiny_model).inspect(PIXELS, 70)


@pytest.fixture(scope="module")
def classic() -> ClassicSubject:
    return ClassicSubject("mbt2018-mean", {3: alive(models.MeanScaleHyperprior(16, 24))})


# ---- the default family


def test_parts_are_those_of_the_real_file(ltn: Anatomy, tiny_weights: Path) -> None:
    data = latens.encode(PIXELS, 70, model=str(tiny_weights))
    assert ltn.size == len(data)
    assert ltn.bpp == pytest.approx(8 * len(data) / (150 * 200))
    decoded = np.asarray(latens.decode(data, model=str(tiny_weights)))
    np.testing.assert_array_equal(ltn.reconstruction, decoded)
    np.testing.assert_array_equal(ltn.original, PIXELS)
    mse = np.mean((decoded.astype(float) - PIXELS) ** 2)
    assert ltn.psnr == pytest.approx(10 * np.log10(255**2 / mse))
    about = latens.format.describe(data)
    parts = {part.name: part.bytes for part in ltn.parts}
    assert parts["container"] == about.overhead + about.extras
    assert sum(parts.values()) - parts["container"] == about.streams
    assert all(size > 0 for size in parts.values())


def test_theory_is_near_the_real_bytes_of_each_part() -> None:
    photo = Path(__file__).parents[2] / "examples" / "blossom.png"
    with Image.open(photo) as image:
        anatomy = LtnSubject().inspect(np.asarray(image.convert("RGB"))[100:356, 200:456], 60)
    for part in anatomy.parts[2:]:
        assert part.bytes == pytest.approx(part.ideal_bits / 8, rel=0.01, abs=4), part
    assert anatomy.size == pytest.approx(anatomy.bit_map().sum() / 8, rel=0.03)


def test_maps_and_channels_add_up(ltn: Anatomy) -> None:
    assert ltn.bit_map().sum() == pytest.approx(sum(part.ideal_bits for part in ltn.parts), rel=1e-6)
    assert ltn.y.channel_bits().sum() == pytest.approx(ltn.parts[-1].ideal_bits, rel=1e-6)
    assert ltn.z is not None
    corner = ltn.y.bits[:, 1, 6].sum() + ltn.z.bits[:, 0, 1].sum() / 16
    assert ltn.bit_map()[1, 6] == pytest.approx(corner, rel=1e-5)


def test_bits_of_y_are_those_of_its_distributions(ltn: Anatomy) -> None:
    y = ltn.y
    assert y.scale is not None
    coded = y.bits > 0
    check_prices(y.bits[coded], spread(y.symbols, y.scale)[coded])
    assert (y.symbols[~coded] == 0).all()


@pytest.mark.parametrize("size", [(150, 200), (100, 1100)])
def test_symbols_are_what_the_means_leave_of_the_latent(
    tiny_model: ReleasedPictures, size: tuple[int, int]
) -> None:
    # Over several tiles too: the latent comes from the picture in one piece, symbols and means tile by tile.
    anatomy = LtnSubject(tiny_model).inspect(tiny.picture(*size), 70)
    y = anatomy.y
    assert y.mean is not None
    assert y.values.shape[1:] == tuple(4 * -(-n // 64) for n in size)
    coded = y.bits > 0
    assert coded.mean() > 0.2
    assert np.abs(y.values - y.mean - y.symbols)[coded].max() < 0.501
    assert anatomy.z is not None
    assert np.abs(anatomy.z.values - anatomy.z.symbols).max() < 0.501


def test_expected_histograms_are_averages_of_the_model(ltn: Anatomy) -> None:
    y, middle = ltn.y, inspect.anatomy.REACH
    assert y.scale is not None
    channel = y.strongest(1)[0]
    # What is not coded is zero.
    coded = y.bits[channel] > 0
    assert coded.mean() > 0.9
    for k in (-3, 0, 5):
        expected = np.where(coded, spread(np.array(k), y.scale[channel]), k == 0).mean()
        assert y.expected[channel, middle + k] == pytest.approx(expected, abs=2e-4)
    assert (y.expected.sum(axis=1) <= 1 + 1e-9).all()
    np.testing.assert_allclose(y.observed()[channel, middle], (y.symbols[channel] == 0).mean())
    order = y.strongest(32)
    assert sorted(order) == list(range(32))
    assert (np.diff(y.channel_bits()[order]) <= 0).all()


def test_the_curve_goes_through_real_files(tiny_model: ReleasedPictures, ltn: Anatomy) -> None:
    subject = LtnSubject(tiny_model)
    subject.qualities = (0.0, 70.0, 100.0)
    curve = subject.rate_curve(PIXELS)
    assert [point.quality for point in curve] == [0.0, 70.0, 100.0]
    assert curve[1].bpp == pytest.approx(ltn.bpp)
    assert curve[1].psnr == pytest.approx(ltn.psnr)
    assert curve[0].bpp < curve[1].bpp < curve[2].bpp
    names = [part.name for part in curve[0].parts]
    assert sum(curve[0].part_bpp(name) for name in names) == pytest.approx(curve[0].bpp)


def test_baselines_hold_the_same_symbols(ltn: Anatomy) -> None:
    assert ltn.z is not None
    raw = b"".join(part.symbols.astype(np.int16).tobytes() for part in (ltn.z, ltn.y))
    assert ltn.baselines().int16 == len(raw) == 2 * (ltn.z.symbols.size + ltn.y.symbols.size)
    assert ltn.baselines().zlib == len(zlib.compress(raw, 9))


def test_grey_pictures_and_the_difference(tiny_model: ReleasedPictures) -> None:
    anatomy = LtnSubject(tiny_model).inspect(tiny.picture(70, 50, 1), 30)
    assert anatomy.original.shape == (70, 50, 3)
    error = anatomy.original[3, 4].astype(int) - anatomy.reconstruction[3, 4]
    np.testing.assert_array_equal(anatomy.difference(8)[3, 4], np.clip(128 + 8 * error, 0, 255))


# ---- classic models in files


@pytest.mark.parametrize(
    ("make", "sizes"),
    [
        *GOOGLE,
        (models.Cheng2020AnchorCheckerboard, (24,)),
        pytest.param(models.Elic2022Official, (16, 160), marks=pytest.mark.slow),
        (models.ScaleHyperpriorVbr, (16, 24)),
    ],
)
def test_weights_files_of_architectures_are_inspected_through_their_files(
    tmp_path: Path, make: Any, sizes: tuple[int, ...]
) -> None:
    path = tmp_path / "classic.safetensors"
    save(alive(make(*sizes)), path, "classic-1")
    subject = inspect.load_subject(path)
    assert subject.qualities == (tuple(100 * i / 7 for i in range(8)) if "Vbr" in make.__name__ else (0.0,))
    # Two tiles for one of them.
    pixels = tiny.picture(100, 1100) if make is models.MeanScaleHyperprior else PIXELS[:100, :120]
    quality = None if len(subject.qualities) == 1 else subject.qualities[5]
    anatomy = subject.inspect(pixels, quality)
    data = latens.encode(pixels, quality, model=str(path))
    assert anatomy.size == len(data)
    np.testing.assert_array_equal(anatomy.reconstruction, np.asarray(latens.decode(data, model=str(path))))
    y = anatomy.y
    assert y.bits.shape == y.values.shape == y.symbols.shape
    assert y.bits.shape[1:] == tuple(4 * -(-n // 64) for n in pixels.shape[:2])
    if make is models.FactorizedPrior:
        assert anatomy.z is None
        assert y.scale is None
        coded = np.ones(y.bits.shape, bool)
    else:
        assert y.scale is not None
        assert anatomy.z is not None
        coded = y.bits > 0
        check_prices(y.bits[coded], mass(y.symbols, 0.0, y.scale)[coded])
        assert (y.mean is None) == (make in (models.ScaleHyperprior, models.ScaleHyperpriorVbr))
    mean = 0.0 if y.mean is None else y.mean
    assert coded.mean() > 0.5
    assert np.abs(y.values - mean - y.symbols)[coded].max() < 0.51
    assert anatomy.bit_map().sum() == pytest.approx(sum(p.ideal_bits for p in anatomy.parts), rel=1e-5)
    for part in anatomy.parts[2:]:
        assert part.bytes == pytest.approx(part.ideal_bits / 8, rel=0.02, abs=8), part
    with pytest.raises(ImageError):
        subject.inspect(pixels, 101)


def test_symbols_beyond_the_tables_have_a_price(tmp_path: Path) -> None:
    path = tmp_path / "classic.safetensors"
    model: Any = alive(models.FactorizedPrior(16, 24))
    with torch.no_grad():
        model.g_a[-1].weight.mul_(40)  # far beyond what the density was made for
    save(model, path, "classic-1")
    anatomy = inspect.load_subject(path).inspect(PIXELS)
    assert np.abs(anatomy.y.symbols).max() > 100
    part = anatomy.parts[-1]
    assert part.bytes == pytest.approx(part.ideal_bits / 8, rel=0.02)


# ---- classic models


@pytest.mark.parametrize(
    ("make", "sizes"),
    [
        *GOOGLE,
        (models.Cheng2020Attention, (16,)),
        (models.Cheng2020GMM, (16,)),
        (models.Cheng2020AnchorCheckerboard, (24,)),
        (models.Elic2022Official, (16, 160)),
        (models.ScaleHyperpriorVbr, (16, 24)),
        (models.JointAutoregressiveHierarchicalPriorsVbr, (16, 24)),
    ],
)
def test_every_architecture_can_be_inspected(make: Any, sizes: tuple[int, ...]) -> None:
    subject = ClassicSubject("x", {1: alive(make(*sizes))})
    pixels = PIXELS[:100, :120]
    anatomy = subject.inspect(pixels)
    y = anatomy.y
    assert anatomy.step == 16
    assert y.bits.shape == y.values.shape == y.symbols.shape
    assert y.bits.shape[1:] == (8, 8)
    assert np.isfinite(y.bits).all()
    mean = 0.0 if y.mean is None else y.mean
    if make not in (models.FactorizedPrior, models.Cheng2020GMM):
        assert np.abs(y.values - mean - y.symbols).max() < 0.501
        assert y.scale is not None
        expected = -np.log2(np.maximum(mass(y.values if y.mean is None else y.symbols, 0.0, y.scale), 1e-9))
        rounded = -np.log2(np.maximum(mass(y.symbols, 0.0, y.scale), 1e-9))
        assert np.allclose(y.bits, rounded, rtol=1e-2, atol=1e-3) or np.allclose(y.bits, expected, rtol=1e-2)
    assert anatomy.bit_map().sum() == pytest.approx(sum(part.ideal_bits for part in anatomy.parts), rel=1e-5)
    assert anatomy.bit_map().shape == (8, 8)
    point = subject.point(pixels, subject.quality)
    assert point.psnr == pytest.approx(anatomy.psnr)
    assert [part.bytes for part in point.parts] == [part.bytes for part in anatomy.parts]


def test_classic_bytes_are_those_of_the_strings(classic: ClassicSubject) -> None:
    anatomy = classic.inspect(PIXELS[:128, :192])
    model: Any = classic._model(3)
    x = torch.from_numpy(PIXELS[:128, :192].copy()).permute(2, 0, 1)[None] / 255.0
    coded = model.compress(x)
    assert anatomy.size == sum(len(s) for part in coded["strings"] for s in part)
    x_hat = model.decompress(**coded)["x_hat"][0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(anatomy.reconstruction, np.round(x_hat * 255).astype(np.uint8))
    with torch.no_grad():
        out = model(x)
    theory = {name: float(-torch.log2(p).sum()) for name, p in out["likelihoods"].items()}
    for part in anatomy.parts[2:]:
        assert part.ideal_bits == pytest.approx(theory[part.name], rel=1e-5)
        assert part.bytes == pytest.approx(part.ideal_bits / 8, rel=0.02, abs=8)


def test_variable_rate_has_all_its_qualities() -> None:
    subject = ClassicSubject("vbr", {0: alive(models.ScaleHyperpriorVbr(16, 24))})
    assert subject.qualities == tuple(range(8))
    curve = subject.rate_curve(PIXELS[:64, :64])
    assert curve[0].bpp < curve[-1].bpp
    with pytest.raises(ImageError, match="from 0 to 7, got 8"):
        subject.inspect(PIXELS, 8)


# ---- statistics


def test_spatial_correlation_of_known_fields() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(6, 64, 64))
    white = inspect.spatial_correlation(noise, 2)
    assert white[2, 2] == pytest.approx(1)
    assert np.abs(np.delete(white.ravel(), 12)).max() < 0.03
    # Averages of two horizontal neighbours share half of what they are made of.
    smooth = inspect.spatial_correlation(noise[:, :, 1:] + noise[:, :, :-1], 2)
    np.testing.assert_allclose(smooth[2], [0, 0.5, 1, 0.5, 0], atol=0.03)
    np.testing.assert_allclose(smooth, smooth[::-1, ::-1])
    field = rng.normal(size=(1, 5, 7))
    centred = field[0] - field[0].mean()
    by_hand = np.mean([centred[i + 1, j] * centred[i, j + 2] for i in range(4) for j in range(5)])
    assert inspect.spatial_correlation(field, 2)[3, 0] == pytest.approx(by_hand / centred.var())
    assert np.isnan(inspect.spatial_correlation(np.zeros((2, 4, 4)), 1)).all()
    with pytest.raises(ShapeError, match=r"\(C, h, w\)"):
        inspect.spatial_correlation(np.zeros((4, 4)))


def test_normalising_takes_away_what_is_predicted() -> None:
    rng = np.random.default_rng(1)
    mean = np.repeat(np.repeat(rng.normal(0, 9, (4, 8, 8)), 4, 1), 4, 2)
    scale = np.repeat(np.repeat(rng.uniform(1, 8, (4, 8, 8)), 4, 1), 4, 2)
    values = mean + scale * rng.normal(size=mean.shape)
    latent = inspect.Latent(
        values, np.rint(values - mean).astype(np.int32), np.ones_like(values), np.zeros((4, 25)), mean, scale
    )
    assert latent.normalised().std() == pytest.approx(1, abs=0.05)
    before, after = (inspect.spatial_correlation(v, 1)[1, 2] for v in (values, latent.normalised()))
    assert before > 0.4
    assert abs(after) < 0.05


def test_gaussian_pmf_is_scipys() -> None:
    scale = np.random.default_rng(2).uniform(0.11, 30, (3, 4, 5))
    k = np.arange(-12, 13)[:, None, None, None]
    np.testing.assert_allclose(
        inspect.gaussian_pmf(scale), mass(k, 0.0, scale[None]).mean(axis=(2, 3)).T, rtol=1e-6, atol=1e-15
    )


# ---- opening models


def test_models_are_recognised(tmp_path: Path, tiny_weights: Path) -> None:
    assert isinstance(inspect.load_subject(tiny_weights), LtnSubject)
    assert inspect.load_subject(DEFAULT_MODEL).name == DEFAULT_MODEL
    save(alive(models.ScaleHyperprior(8, 12)), tmp_path / "classic.safetensors", "classic-1")
    frozen = inspect.load_subject(tmp_path / "classic.safetensors")
    assert (type(frozen), frozen.name) == (LtnSubject, "classic-1")
    subject = inspect.load_subject("mbt2018-mean")  # nothing is downloaded yet
    assert subject.qualities == tuple(range(1, 9))
    for make, sizes in ((models.ScaleHyperprior, (8, 12)), (models.Cheng2020GMM, (8,))):
        path = tmp_path / f"{make.__name__}.pth.tar"
        torch.save({"state_dict": make(*sizes).state_dict()}, path)
        opened = inspect.load_subject(path)
        assert isinstance(opened, ClassicSubject)
        assert type(opened._model(1)) is make
        assert opened.name == path.name


def test_what_is_no_model_says_so(tmp_path: Path, tiny_model: ReleasedPictures) -> None:
    with pytest.raises(
        UnknownModelError, match=rf"neither a file nor a model; there are .*{DEFAULT_MODEL}.*mbt2018"
    ):
        inspect.load_subject("nothing")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ModelError):
        inspect.load_subject(tmp_path / "text.pth")
    torch.save({"weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match="fits no image architecture"):
        inspect.load_subject(tmp_path / "other.pth")
    with pytest.raises(UnavailableError, match="no weights were published"):
        inspect.load_subject("elic2022-official")
    with pytest.raises(ModelError, match="metric mse or ms-ssim"):
        inspect.load_subject("mbt2018", metric="lpips")
    with pytest.raises(ModelError, match="no model to inspect"):
        ClassicSubject("empty", {})
    with pytest.raises(ModelError, match="no entropy model"):
        ClassicSubject("bare", {1: _Bare()}).inspect(PIXELS)


class _Bare(models.CompressionModel):
    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"x_hat": x, "likelihoods": {}}

    def compress(self, x: torch.Tensor) -> dict[str, Any]:
        return {"strings": [[b"12345678"]], "shape": x}

    def decompress(self, strings: Any, shape: torch.Tensor) -> dict[str, Any]:
        return {"x_hat": shape}


@pytest.mark.parametrize(
    "pixels", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8)]
)
def test_other_arrays_are_refused(tiny_model: ReleasedPictures, classic: ClassicSubject, pixels: Any) -> None:
    for subject in (LtnSubject(tiny_model), classic):
        with pytest.raises(ShapeError, match="expected uint8"):
            subject.inspect(pixels)


def test_latents_without_scales_cannot_be_normalised() -> None:
    anatomy = ClassicSubject("f", {1: alive(models.FactorizedPrior(16, 24))}).inspect(PIXELS[:64, :64])
    with pytest.raises(ShapeError, match="no predicted scale"):
        anatomy.y.normalised()
    assert anatomy.z is None


# ---- the report


class Tags(HTMLParser):
    """Names of all tags and addresses, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def with_text(photo: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Marks on white, with a photograph in the upper left corner; and which blocks are not of it."""
    rng = np.random.default_rng(1)
    pixels = np.full((192, 256, 3), 250, np.uint8)
    marks = np.zeros((192, 256), bool)
    marks[4::12, 5:250:3] = marks[5::12, 6:250:5] = marks[7::12, 5:250:4] = True
    pixels[marks] = 20
    height, width = photo
    grain = rng.normal(0, 6, (height, width, 3)) + np.linspace(60, 200, max(width, 1))[:width, None]
    pixels[:height, :width] = np.clip(grain, 0, 255)
    drawn = np.ones((3, 4), bool)
    drawn[: height // 64, : width // 64] = False
    return pixels, drawn


def test_what_is_drawn_is_told_apart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    subject = inspect.load_subject()
    pixels, drawn = with_text((128, 128))
    found = subject.inspect(pixels, 70)
    data = latens.encode(pixels, 70)
    assert found.size == len(data)
    parts = {part.name: part.bytes for part in found.parts}
    assert parts["drawn blocks"] == len(latens.format.read(data).tiles[0].drawn) > 0
    assert found.drawn is not None
    np.testing.assert_array_equal(
        found.drawn, drawn.repeat(64, 0).repeat(64, 1)[: len(pixels), : pixels.shape[1]]
    )
    np.testing.assert_array_equal(found.reconstruction[128:], pixels[128:])
    assert found.lossless == 0
    page = inspect.write_report(found, (), tmp_path / "out", title="page").read_text()
    assert "What is drawn" in page
    with Image.open(tmp_path / "out" / "blocks.png") as image:
        assert image.width > 300
    numbers = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert numbers["drawn"] == {"blocks": 8, "of": 12}
    assert numbers["parts"]["drawn blocks"]["bytes"] == parts["drawn blocks"]


def test_what_is_made_lossless_is_said_and_the_model_shown(tmp_path: Path) -> None:
    pixels, _ = with_text((0, 0))
    found = inspect.load_subject().inspect(pixels, 70)
    assert found.lossless == len(latens.encode(pixels, 70)) < found.size
    assert "drawn blocks" not in {part.name for part in found.parts}
    assert found.size == len(latens.encode(pixels, 70, content="photo"))


def test_the_report_holds_everything(ltn: Anatomy, tiny_model: ReleasedPictures, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    subject = LtnSubject(tiny_model)
    curve = [subject.point(PIXELS, quality) for quality in (0, 50)]
    evil = '<script>alert("x")</script>.png'
    page = inspect.write_report(ltn, curve, tmp_path / "out", title=evil)
    names = {path.stem for path in page.parent.glob("*.png")}
    assert names == {
        "heatmap", "channels", "strongest", "histograms", "parts", "maps", "hyperprior", "correlation", "staircase",
        "side-information", "original", "reconstruction", "difference",
    }  # fmt: skip
    with Image.open(page.parent / "reconstruction.png") as image:
        np.testing.assert_array_equal(np.asarray(image), ltn.reconstruction)
    source = page.read_text()
    tags = Tags()
    tags.feed(source)
    assert "script" not in tags.names
    assert "link" not in tags.names
    assert len(tags.addresses) == len(names)
    assert all(address.startswith("data:image/png;base64,") for address in tags.addresses)
    assert "default-src 'none'" in source
    assert evil in tags.text
    assert f"{ltn.size:,}" in tags.text
    assert f"{ltn.psnr:.2f} dB" in tags.text
    numbers = json.loads((page.parent / "inspection.json").read_text())
    assert numbers["bytes"] == ltn.size == sum(part["bytes"] for part in numbers["parts"].values())
    assert [point["quality"] for point in numbers["curve"]] == [0, 50]
    assert sum(c["bits"] for c in numbers["channels"]) / 8 == pytest.approx(
        numbers["parts"]["y"]["ideal_bytes"]
    )
    for row in ltn.y.strongest(5):
        assert f"<td>{row}</td>" in source
    with pytest.raises(OutputError, match="exists"):
        inspect.write_report(ltn, curve, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        inspect.write_report(ltn, curve, tmp_path / "file")


def test_models_with_less_give_fewer_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    anatomy = ClassicSubject("f", {1: alive(models.FactorizedPrior(16, 3))}).inspect(PIXELS[:64, :64])
    page = inspect.write_report(anatomy, [], tmp_path)
    names = {path.stem for path in tmp_path.glob("*.png")}
    assert not names & {"maps", "hyperprior", "correlation", "staircase", "side-information"}
    assert "heatmap" in names
    assert "All qualities" not in page.read_text()
    with Image.open(BytesIO((tmp_path / "channels.png").read_bytes())) as image:
        assert image.size[0] > 1000


def test_pages_carry_large_pictures_reduced(ltn: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = BytesIO()
    Image.fromarray(ltn.original).save(buffer, "PNG")
    assert report._reduced(buffer.getvalue()) == buffer.getvalue()
    monkeypatch.setattr(report, "_PAGE_SIDE", 100)
    with Image.open(BytesIO(report._reduced(buffer.getvalue()))) as image:
        assert image.size == (100, 75)


def test_without_matplotlib_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, ltn: Anatomy, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(UnavailableError, match=r"pip install 'latens\[eval\]'"):
        inspect.write_report(ltn, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()
