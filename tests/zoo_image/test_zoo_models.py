"""The zoo of published architectures: its entries, its functions, and what a model of each can do."""

import functools
import hashlib
import importlib
import inspect
import math
import re

import pytest
import torch
from torch import nn

import latens.zoo as zoo
from latens.errors import ModelError, UnavailableError, UnknownModelError
from latens.losses import RateDistortionLoss
from latens.models import FactorizedPrior, FactorizedPriorReLU, MeanScaleHyperprior, ScaleHyperprior
from latens.optimizers import net_aux_optimizer, net_optimizer
from latens.zoo import architectures
from latens.zoo.architectures import ModelEntry, register_entry
from latens.zoo.complexity import count
from published import SIZES

NAMES = {
    "bmshj2018-factorized": "FactorizedPrior",
    "bmshj2018-factorized-relu": "FactorizedPriorReLU",
    "bmshj2018-hyperprior": "ScaleHyperprior",
    "mbt2018-mean": "MeanScaleHyperprior",
    "mbt2018": "JointAutoregressiveHierarchicalPriors",
    "cheng2020-anchor": "Cheng2020Anchor",
    "cheng2020-attn": "Cheng2020Attention",
    "cheng2020-gmm": "Cheng2020GMM",
    "bmshj2018-hyperprior-vbr": "ScaleHyperpriorVbr",
    "mbt2018-mean-vbr": "MeanScaleHyperpriorVbr",
    "mbt2018-vbr": "JointAutoregressiveHierarchicalPriorsVbr",
    "cheng2020-anchor-checkerboard": "Cheng2020AnchorCheckerboard",
    "elic2022-official": "Elic2022Official",
    "elic2022-chandelier": "Elic2022Chandelier",
    "cca": "CCA",
    "dcae": "DCAE",
    "hpcm": "HPCM",
    "hpcm-large": "HPCMLarge",
    "lalic": "LALIC",
    "mlic++": "MLICPlusPlus",
    "stf": "SymmetricalTransFormer",
    "tcm": "TCM",
    "wacnn": "WACNN",
}


def is_here(name):
    try:
        zoo.entry(name).model_class()
    except UnavailableError:
        return False
    return True


VIDEO = {"dcvc-rt": "DCVCRT", "dcvc-rt-intra": "DCVCRTIntra", "ssf2020": "ScaleSpaceFlow"}

HERE = [name for name in NAMES if is_here(name)]


def meta(name, quality=None):
    with torch.device("meta"):
        return zoo.models[name](quality)


class TestEntries:
    def test_names(self):
        assert {e.id: e.architecture for e in zoo.entries()} == {**NAMES, **VIDEO}
        assert set(zoo.image_models) == set(NAMES)
        assert set(zoo.video_models) == set(VIDEO)
        assert zoo.models == {**zoo.image_models, **zoo.video_models}
        for name, function in zoo.models.items():
            assert function.__name__ == name.replace("-", "_").replace("++", "_plus_plus")
            assert getattr(zoo, function.__name__) is function
            assert function.__doc__
            assert list(inspect.signature(function).parameters)[:4] == [
                "quality",
                "metric",
                "pretrained",
                "progress",
            ]

    @pytest.mark.parametrize("entry", zoo.entries(), ids=lambda entry: entry.id)
    def test_every_file_has_a_quality_a_metric_and_a_hash(self, entry):
        assert set(entry.weights) <= set(entry.metrics)
        for metric, files in entry.weights.items():
            assert set(files) == set(entry.sizes)
            for quality, file in files.items():
                assert re.fullmatch(r"[\w-]+-[0-9a-f]{8}\.pth\.tar", file)
                assert entry.url(quality, metric).endswith(f"amazonaws.com/models/v1/{file}")
                assert f"-{quality}-" in file or not entry.qualities
            assert ("ms-ssim" in metric) == all("ms-ssim" in file for file in files.values())
        for metric, values in entry.lmbda.items():
            assert metric in entry.weights
            assert len(values) == (len(entry.qualities) or 8)
            assert list(values) == sorted(values)

    def test_all_files_are_different(self):
        files = [f for e in zoo.entries() for by_quality in e.weights.values() for f in by_quality.values()]
        assert len(set(files)) == len(files) == 4 * 2 * 8 + 2 * 2 * 6 + 3 + 9

    @pytest.mark.parametrize(
        ("name", "quality", "metric", "file"),
        [
            ("bmshj2018-factorized", 1, "mse", "bmshj2018-factorized-prior-1-446d5c7f.pth.tar"),
            ("bmshj2018-hyperprior", 8, "ms-ssim", "bmshj2018-hyperprior-ms-ssim-8-cc15b5f3.pth.tar"),
            ("mbt2018-mean", 5, "mse", "mbt2018-mean-5-d504e8eb.pth.tar"),
            ("mbt2018", 4, "ms-ssim", "mbt2018-ms-ssim-4-a120e037.pth.tar"),
            ("cheng2020-anchor", 6, "ms-ssim", "cheng2020_anchor-ms-ssim-6-f2dc1913.pth.tar"),
            ("cheng2020-attn", 3, "mse", "cheng2020_attn-mse-3-2d07bbdf.pth.tar"),
            ("mbt2018-vbr", None, "mse", "mbt2018-mse-vbr-f12581a1.pth.tar"),
            ("ssf2020", 9, "mse", "ssf2020-mse-9-e89345c4.pth.tar"),
        ],
    )
    def test_addresses(self, name, quality, metric, file):
        assert zoo.entry(name).url(quality, metric) == (
            f"https://compressai.s3.amazonaws.com/models/v1/{file}"
        )

    def test_a_name_cannot_be_taken_twice(self):
        with pytest.raises(ModelError, match="registered twice"):
            register_entry(lambda: zoo.entry("mbt2018"))

    def test_unknown_names(self):
        with pytest.raises(UnknownModelError, match="there are bmshj2018-factorized"):
            zoo.entry("yolo")


class TestFunctions:
    @pytest.mark.parametrize("name", HERE)
    def test_sizes_per_quality(self, name):
        entry = zoo.entry(name)
        for quality in {min(entry.qualities), max(entry.qualities)} if entry.qualities else {None, 3}:
            model = meta(name, quality)
            assert type(model) is entry.model_class()
            size = entry.sizes[entry.check(quality, "mse")]
            first = next(iter(inspect.signature(type(model)).parameters))
            assert (
                getattr(model, first) if name in SIZES else next(model.g_a.parameters()).shape[0]
            ) == size[0]

    def test_the_sizes_that_the_weights_have(self):
        def sizes(name):
            return [zoo.entry(name).sizes[q] for q in zoo.entry(name).qualities]

        small, large = (128, 192), (192, 320)
        for name in ("bmshj2018-factorized", "bmshj2018-factorized-relu", "bmshj2018-hyperprior"):
            assert sizes(name) == [small] * 5 + [large] * 3
        assert sizes("mbt2018-mean") == [small] * 4 + [large] * 4
        assert sizes("mbt2018") == [(192, 192)] * 4 + [large] * 4
        assert sizes("cheng2020-anchor") == sizes("cheng2020-attn") == [(128,)] * 3 + [(192,)] * 3

    @pytest.mark.parametrize("quality", [0, -1, 9, 2.5, "3", None])
    def test_wrong_qualities(self, quality):
        with pytest.raises(ModelError, match="expected a quality from 1 to 8"):
            zoo.mbt2018_mean(quality)

    def test_wrong_metrics(self):
        with pytest.raises(ModelError, match="metric mse or ms-ssim, but got 'ssim'"):
            zoo.mbt2018_mean(1, metric="ssim")
        with pytest.raises(ModelError, match="metric mse, but got 'ms-ssim'"):
            zoo.mbt2018_mean_vbr(metric="ms-ssim")

    def test_no_weights_were_published(self):
        with pytest.raises(UnavailableError, match="no weights were published"):
            zoo.bmshj2018_factorized_relu(1, pretrained=True)
        with pytest.raises(UnavailableError, match="no weights were published for metric ms-ssim"):
            zoo.entry("ssf2020").url(1, "ms-ssim")

    def test_a_class_that_is_not_there_yet(self, monkeypatch):
        tiny = ModelEntry(id="tiny", architecture="NotThere", sizes={0: ()}, paper="")
        monkeypatch.setitem(architectures._ENTRIES, "tiny", tiny)
        with pytest.raises(UnavailableError, match="does not have NotThere yet"):
            architectures._load_model("tiny", "mse", None)

    def test_constructor_arguments_pass_through(self):
        with pytest.raises(TypeError, match="speed"):
            zoo.mbt2018_mean(1, speed=3)
        with pytest.raises(ModelError, match="no choice of speed"):
            zoo.mbt2018_mean(1, pretrained=True, speed=3)

    def test_dictionaries_that_scripts_look_into(self):
        from latens.zoo.image import cfgs, model_architectures, model_urls

        assert model_architectures["mbt2018-mean"] is MeanScaleHyperprior
        assert model_architectures["bmshj2018-factorized-relu"] is FactorizedPriorReLU
        assert cfgs["bmshj2018-hyperprior"][6] == (192, 320)
        assert model_urls["mbt2018"]["mse"][3].endswith("/mbt2018-3-22901978.pth.tar")
        assert model_urls["mbt2018-vbr"]["mse"].endswith("/mbt2018-mse-vbr-f12581a1.pth.tar")
        assert zoo.load_state_dict is zoo.load_pretrained
        assert set(zoo.image_models) <= set(model_architectures)
        assert "ssf2020" not in model_architectures
        video = importlib.import_module("latens.zoo.video")
        assert list(video.model_architectures) == sorted(VIDEO)
        assert video.model_urls["ssf2020"]["mse"][9] == f"{video.root_url}/ssf2020-mse-9-e89345c4.pth.tar"
        with pytest.raises(AttributeError, match="no dictionary of models called 'model_colours'"):
            _ = video.model_colours


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A tiny model, as if published: in the cache under the name of an entry."""
    monkeypatch.setenv("LATENS_CACHE", str(tmp_path))
    model = ScaleHyperprior(8, 12)
    for parameter in model.parameters():
        parameter.data += torch.rand_like(parameter) * 0.01
    old = {
        "module." + re.sub(r"bottleneck\.(matrices|biases|factors)\.", r"bottleneck._\1.", key): value
        for key, value in model.state_dict().items()
    }
    (tmp_path / "models").mkdir()
    torch.save(old, tmp_path / "models" / "file")
    digits = hashlib.sha256((tmp_path / "models" / "file").read_bytes()).hexdigest()[:8]
    name = f"tiny-1-{digits}.pth.tar"
    (tmp_path / "models" / "file").rename(tmp_path / "models" / name)
    entry = ModelEntry(
        id="tiny",
        architecture="ScaleHyperprior",
        sizes={1: (4, 4)},
        paper="",
        weights={"mse": {1: name}},
    )
    monkeypatch.setitem(architectures._ENTRIES, "tiny", entry)
    return model


def test_published_weights_in_an_old_layout(published):
    model = architectures._load_model("tiny", "mse", 1, pretrained=True, progress=False)
    # The sizes are those of the weights; the published Cheng models differ from the list, too.
    assert type(model) is ScaleHyperprior
    assert (model.N, model.M) == (8, 12)
    for key, value in published.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


SMALL = {
    "mbt2018-vbr": (8, 8),
    "cheng2020-anchor": (8,),
    "cheng2020-attn": (8,),
    "cheng2020-gmm": (8,),
    "cheng2020-anchor-checkerboard": (8,),
    "elic2022-official": (8, 144),
    "elic2022-chandelier": (8, 144),
    **SIZES,
}


@pytest.mark.parametrize("name", HERE)
def test_every_entry_trains_a_step_codes_and_decodes(name):
    torch.manual_seed(1)
    model = zoo.entry(name).model_class()(*SMALL.get(name, (8, 12)))
    adam = {"type": "Adam", "lr": 1e-3}
    # The densities of these have no quantiles.
    aux = not name.startswith("hpcm")
    optimizers = (
        net_aux_optimizer(model, {"net": adam, "aux": adam}) if aux else net_optimizer(model, {"net": adam})
    )
    x = torch.rand(1, 3, 64, 64)
    before = [parameter.clone() for parameter in model.parameters()]
    out = model.train()(x)
    loss = RateDistortionLoss(lmbda=0.01)(out, x)["loss"]
    loss.backward()
    optimizers["net"].step()
    if aux:
        model.aux_loss().backward()
        optimizers["aux"].step()
    assert torch.isfinite(loss)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    model.eval()
    with torch.no_grad():
        coded = model.compress(x)
        x_hat = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    assert x_hat.shape == x.shape
    assert x_hat.min() >= 0
    assert x_hat.max() <= 1


@pytest.mark.parametrize("entry", zoo.entries(), ids=lambda entry: entry.id)
def test_sizes_that_no_model_can_have_are_named(entry):
    """In all arguments of all constructors, before any memory is taken."""
    make = entry.model_class()
    known = list(inspect.signature(make).parameters.values())
    sizes = dict(
        zip((p.name for p in known), SMALL.get(entry.id) or entry.sizes[max(entry.sizes)], strict=False)
    )
    tried = set()
    for argument in known:
        depth = argument.annotation.count("Sequence")
        if not depth and argument.annotation != "int":
            continue
        tried.add(argument.name)
        for wrong in (-2, 10**9, 10**5000, 2.5, "8", True, math.nan, torch.zeros(2)):
            value = functools.reduce(lambda inner, _: [inner], range(depth), wrong)
            with pytest.raises(
                ModelError, match=rf"{make.__name__}: {argument.name} should be a whole number"
            ):
                make(**{**sizes, argument.name: value})
        with pytest.raises(ModelError, match=rf"{make.__name__}: {argument.name} should be a"):
            make(**{**sizes, argument.name: 0 if depth else -5})
    assert tried >= set(sizes)


@pytest.mark.parametrize("name", ["mlp_ratio", "drop_path_rate"])
@pytest.mark.parametrize("wrong", [-1, 10**9, math.nan, math.inf, "1", True])
def test_fractions_that_no_model_can_have_are_named(name, wrong):
    with pytest.raises(ModelError, match=name):
        zoo.entry("stf").model_class()(**{name: wrong})


def test_classes_of_others_have_rules_of_their_own():
    class Theirs(FactorizedPrior):
        def __init__(self, N: "int", extra: "int" = 0) -> None:
            super().__init__(N, N + extra)

    assert Theirs(4, extra=-1).M == 3
    Theirs.__init__.__module__ = None  # as of classes in code that is no module
    assert Theirs(4, extra=-1).M == 3
    with pytest.raises(ModelError, match="Same: N should be"):
        type("Same", (FactorizedPrior,), {"__module__": "mine"})(0, 4)


class TestComplexity:
    def test_against_a_sum_by_hand(self):
        # Convolutions 3-N, N-N, N-N, N-M, 5x5, at a half, a quarter, an eighth, a sixteenth of the size.
        n, m = 128, 192
        g_a = 25 * (3 * n / 4 + n * n / 16 + n * n / 64 + n * m / 256)
        cost = count(meta("bmshj2018-factorized-relu", 1))
        assert cost.encoding == cost.decoding == g_a == 36800
        gdn = n * n * (1 / 4 + 1 / 16 + 1 / 64)
        assert count(meta("bmshj2018-factorized", 1)).encoding == g_a + gdn
        # 3x3 at a sixteenth, then 5x5 at 1/32 and 1/64; h_s mirrors it.
        h_a = 9 * m * n / 256 + 25 * n * n * (1 / 1024 + 1 / 4096)
        cost = count(meta("bmshj2018-hyperprior", 1))
        assert cost.encoding == g_a + gdn + 2 * h_a
        assert cost.decoding == g_a + gdn + h_a

    def test_parameters_and_mode_are_left_alone(self):
        model = MeanScaleHyperprior(4, 6).train()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        cost = count(model)
        assert cost.parameters == sum(p.numel() for p in model.parameters())
        assert model.training
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    def test_not_a_model_of_images(self):
        with pytest.raises(ModelError, match="cannot be counted"):
            count(nn.Linear(3, 3))


def test_listing(monkeypatch):
    missing = ModelEntry(id="missing", architecture="NotThere", sizes={0: ()}, paper="")
    monkeypatch.setitem(architectures._ENTRIES, "missing", missing)
    rows = zoo.listing()
    assert {row.name for row in rows} == {entry.id for entry in zoo.entries()}
    assert [row.name for row in rows] == sorted(row.name for row in rows)
    by_size = {(row.name, row.qualities[:1]): row for row in rows}
    small, large = by_size["bmshj2018-hyperprior", (1,)], by_size["bmshj2018-hyperprior", (6,)]
    assert (small.qualities, large.qualities) == ((1, 2, 3, 4, 5), (6, 7, 8))
    assert (small.parameters, large.parameters) == (5_075_843, 11_816_323)
    assert small.mac_per_pixel == (44904, 43540)
    assert small.source.startswith("https://")
    assert small.metrics == ("mse", "ms-ssim")
    assert by_size["bmshj2018-factorized-relu", (1,)].source == ""
    assert by_size["bmshj2018-hyperprior-vbr", ()].qualities == ()
    for row in rows:
        assert (row.parameters is None) == (row.mac_per_pixel is None) == (row.name not in [*HERE, *VIDEO])
