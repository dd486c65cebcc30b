"""Code written for CompressAI, run as it is."""

import copy
import importlib
import importlib.util
import pickle
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

import latens
from latens import compat, registry
from latens.errors import LatensError, OutOfScopeError

THIRD_PARTY = Path(__file__).parent / "third_party"


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    for kind in ("MODELS", "MODULES"):
        monkeypatch.setitem(registry._registries, kind, dict(getattr(registry, kind)))
    compat.install()
    yield
    compat.uninstall()


def third_party(name):
    spec = importlib.util.spec_from_file_location(f"third_party_{name}", THIRD_PARTY / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SAME = {
    "compressai._CXX": "latens._CXX",
    "compressai.ans": "latens.ans",
    "compressai.datasets": "latens.datasets",
    "compressai.datasets.image": "latens.datasets.image",
    "compressai.datasets.rawvideo": "latens.datasets.rawvideo",
    "compressai.entropy_models": "latens.entropy_models",
    "compressai.entropy_models.entropy_models": "latens.entropy_models.entropy_models",
    "compressai.latent_codecs": "latens.latent_codecs",
    "compressai.latent_codecs.gain.hyperprior": "latens.latent_codecs",
    "compressai.latent_codecs.hyper": "latens.latent_codecs",
    "compressai.layers": "latens.layers",
    "compressai.layers.gdn": "latens.layers.gdn",
    "compressai.layers.layers": "latens.layers.layers",
    "compressai.losses.rate_distortion": "latens.losses.rate_distortion",
    "compressai.models": "latens.models",
    "compressai.models.base": "latens.models.base",
    "compressai.models.google": "latens.models.google",
    "compressai.models.priors": "latens.models.priors",
    "compressai.models.sensetime": "latens.models.sensetime",
    "compressai.models.utils": "latens.models.utils",
    "compressai.models.waseda": "latens.models.waseda",
    "compressai.ops": "latens.ops",
    "compressai.ops.parametrizers": "latens.ops.parametrizers",
    "compressai.registry.torch": "latens.registry",
    "compressai.transforms.functional": "latens.transforms.functional",
    "compressai.typing.torch": "latens.typing",
    "compressai.zoo": "latens.zoo",
    "compressai.zoo.image_vbr": "latens.zoo.image",
    "compressai.zoo.pretrained": "latens.zoo.pretrained",
}


# Public names of CompressAI 1.2.8, and what published code imports besides.
NAMES = {
    "compressai": "available_entropy_coders get_entropy_coder set_entropy_coder datasets entropy_models latent_codecs "
    "layers losses models ops optimizers registry transforms typing zoo ans __version__",
    "compressai._CXX": "pmf_to_quantized_cdf",
    "compressai.ans": "BufferedRansEncoder RansDecoder RansEncoder",
    "compressai.datasets": "ImageFolder PreGeneratedMemmapDataset RawVideoSequence VideoFolder VideoFormat "
    "Vimeo90kDataset video_formats",
    "compressai.datasets.cache": "CacheDataset",
    "compressai.datasets.ndarray": "NdArrayDataset",
    "compressai.datasets.rawvideo": "RawVideoSequence VideoFormat bitdepth_to_dtype file_extensions "
    "framerate_to_fraction get_num_frms get_raw_video_file_info make_dtype subsampling video_formats",
    "compressai.datasets.stack": "StackDataset",
    "compressai.entropy_models": "EntropyBottleneck EntropyBottleneckVbr EntropyModel EntropyModelVbr "
    "GaussianConditional GaussianMixtureConditional",
    "compressai.entropy_models.entropy_models": "EntropyBottleneck EntropyModel GaussianConditional "
    "GaussianMixtureConditional LowerBound default_entropy_coder pmf_to_quantized_cdf _EntropyCoder",
    "compressai.entropy_models.entropy_models_vbr": "EntropyBottleneckVbr EntropyModelVbr",
    "compressai.latent_codecs": "ChannelGroupsLatentCodec CheckerboardLatentCodec EntropyBottleneckLatentCodec "
    "GainHyperLatentCodec GainHyperpriorLatentCodec GaussianConditionalLatentCodec HyperLatentCodec "
    "HyperpriorLatentCodec LatentCodec RasterScanLatentCodec",
    "compressai.latent_codecs.gain": "GainHyperLatentCodec GainHyperpriorLatentCodec",
    "compressai.latent_codecs.hyper": "HyperLatentCodec",
    "compressai.layers": "GDN GDN1 AttentionBlock CheckerboardMaskedConv2d Gain Interleave Lambda MaskedConv2d "
    "NamedLayer QReLU Reshape ResidualBlock ResidualBlockUpsample ResidualBlockWithStride SpectralConv2d "
    "SpectralConvTranspose2d Transpose conv1x1 conv3x3 sequential_channel_ramp subpel_conv3x3",
    "compressai.layers.basic": "Gain Interleave Lambda NamedLayer Reshape Transpose",
    "compressai.layers.gdn": "GDN GDN1",
    "compressai.layers.layers": "AttentionBlock MaskedConv2d ResidualBlock conv1x1 conv3x3 subpel_conv3x3 GDN",
    "compressai.losses": "RateDistortionLoss",
    "compressai.models": "conv3x3 Cheng2020Anchor Cheng2020AnchorCheckerboard Cheng2020Attention CompressionModel "
    "Elic2022Chandelier Elic2022Official FactorizedPrior FactorizedPriorReLU JointAutoregressiveHierarchicalPriors "
    "MeanScaleHyperprior ScaleHyperprior SimpleVAECompressionModel get_scale_table SCALES_LEVELS SCALES_MAX "
    "SCALES_MIN",
    "compressai.models.base": "remap_old_keys update_registered_buffers CompressionModel "
    "SimpleVAECompressionModel SCALES_LEVELS SCALES_MAX SCALES_MIN "
    "get_scale_table",
    "compressai.models.google": "BufferedRansEncoder RansDecoder register_model CompressionModel "
    "EntropyBottleneck GaussianConditional GDN conv deconv "
    "get_scale_table SCALES_LEVELS SCALES_MAX SCALES_MIN JointAutoregressiveHierarchicalPriors MeanScaleHyperprior",
    "compressai.models.priors": "CompressionModel GaussianConditional get_scale_table MeanScaleHyperprior",
    "compressai.models.sensetime": "Cheng2020AnchorCheckerboard Elic2022Chandelier Elic2022Official "
    "ResidualBottleneckBlock ResidualBlock ResidualBlockUpsample ResidualBlockWithStride subpel_conv3x3",
    "compressai.models.utils": "_update_registered_buffer conv deconv find_named_buffer find_named_module "
    "gaussian_blur gaussian_kernel1d "
    "gaussian_kernel2d meshgrid2d remap_old_keys update_registered_buffers",
    "compressai.models.waseda": "Cheng2020Anchor Cheng2020Attention",
    "compressai.ops": "LowerBound NonNegativeParametrizer compute_padding quantize_ste ste_round",
    "compressai.ops.bound_ops": "LowerBound LowerBoundFunction lower_bound_bwd lower_bound_fwd",
    "compressai.ops.parametrizers": "NonNegativeParametrizer",
    "compressai.optimizers": "net_aux_optimizer net_optimizer",
    "compressai.optimizers.net_aux": "net_aux_optimizer",
    "compressai.registry": "CRITERIONS DATASETS MODELS MODULES OPTIMIZERS SCHEDULERS TRANSFORMS register_criterion "
    "register_dataset register_model register_module register_optimizer register_scheduler register_transform",
    "compressai.registry.transforms": "TRANSFORMS register_transform",
    "compressai.transforms": "RGB2YCbCr YCbCr2RGB YUV420To444 YUV444To420",
    "compressai.transforms.transforms": "F_transforms RGB2YCbCr YCbCr2RGB YUV420To444 YUV444To420",
    "compressai.transforms.functional": "YCBCR_WEIGHTS rgb2ycbcr ycbcr2rgb yuv_420_to_444 yuv_444_to_420",
    "compressai.typing": "TCriterion TDataLoader TDataset TModel TModule TOptimizer TScheduler TTransform",
    "compressai.zoo": "bmshj2018_factorized bmshj2018_factorized_relu bmshj2018_hyperprior cheng2020_anchor "
    "cheng2020_attn mbt2018 mbt2018_mean bmshj2018_hyperprior_vbr mbt2018_mean_vbr mbt2018_vbr ssf2020 image_models "
    "video_models models load_state_dict",
    "compressai.zoo.image": "load_pretrained load_state_dict_from_url MeanScaleHyperprior model_architectures "
    "model_urls root_url cfgs mbt2018_mean",
    "compressai.zoo.image_vbr": "model_architectures mbt2018_mean_vbr",
    "compressai.zoo.pretrained": "load_pretrained rename_key",
    "compressai.zoo.video": "load_pretrained load_state_dict_from_url ScaleSpaceFlow model_architectures "
    "model_urls root_url ssf2020",
}


class TestModules:
    @pytest.mark.parametrize("name", NAMES)
    def test_names(self, name):
        module = importlib.import_module(name)
        assert [wanted for wanted in NAMES[name].split() if not hasattr(module, wanted)] == []

    @pytest.mark.parametrize("name", SAME)
    def test_modules_are_those_of_latens(self, name):
        ours = importlib.import_module(SAME[name])
        spec = ours.__spec__
        assert importlib.import_module(name) is ours
        assert (ours.__name__, ours.__spec__) == (SAME[name], spec)

    @pytest.mark.parametrize("name", ["registry", "typing", "optimizers"])
    def test_packages_that_are_modules_here(self, name):
        ours = importlib.import_module(f"latens.{name}")
        theirs = importlib.import_module(f"compressai.{name}")
        assert all(getattr(theirs, attribute) is getattr(ours, attribute) for attribute in ours.__all__)
        space = {}
        exec(f"from compressai.{name} import *", space)
        assert set(ours.__all__) <= set(space)

    def test_sub_modules_come_with_the_package(self):
        code = (
            "import latens.compat; latens.compat.install(); import sys, compressai; assert 'torch' not in sys.modules;"
            "compressai.models.MeanScaleHyperprior(4, 6); compressai.registry.MODELS['mbt2018-mean']"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_the_top_level(self):
        import compressai
        from compressai.version import __version__

        assert compressai.__version__ == __version__ == compat.COMPRESSAI_VERSION == "1.2.8"
        assert importlib.util.find_spec("compressai") is not None
        assert "ans" in compressai.available_entropy_coders()
        assert compressai.get_entropy_coder() == latens.get_entropy_coder() == "ans"
        assert compressai.set_entropy_coder("ans") == "ans"
        space = {}
        exec("from compressai import *", space)
        assert space["models"] is latens.models
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = compressai.nothing
        assert not hasattr(compressai, "__file__")

    def test_what_entropy_models_of_ones_own_are_built_with(self):
        from compressai.entropy_models.entropy_models import (
            _EntropyCoder,
            default_entropy_coder,
            pmf_to_quantized_cdf,
        )

        table = pmf_to_quantized_cdf(torch.tensor([0.2, 0.3, 0.5]))
        assert table.dtype == torch.int32
        assert table.tolist() == [0, 13107, 32768, 65536]
        coder = _EntropyCoder(default_entropy_coder())
        tables = ([0, 0, 0], [table.tolist()], [4], [0])
        coded = coder.encode_with_indexes([1, 0, 1], *tables)
        assert coder.decode_with_indexes(coded, *tables) == [1, 0, 1]

    @pytest.mark.parametrize("name", ["entropy_models.entropy_models", "layers.layers", "models.priors"])
    def test_the_same_modules_by_their_own_names(self, name):
        ours = importlib.import_module(f"latens.{name}")
        assert [n for n in NAMES[f"compressai.{name}"].split() if not hasattr(ours, n)] == []

    def test_modules_that_nobody_has(self):
        with pytest.raises(ModuleNotFoundError, match=r"compressai\.models\.quantum") as caught:
            importlib.import_module("compressai.models.quantum")
        assert caught.value.name == "compressai.models.quantum"

    @pytest.mark.parametrize(
        "name",
        [
            "compressai.datasets.pointcloud",
            "compressai.layers.pointcloud.pointnet",
            "compressai.losses.pointcloud",
            "compressai.models.pointcloud",
            "compressai.models.pointcloud.hrtzxf2022",
            "compressai.transforms.point",
            "compressai.sadl_codec.extract_codec",
            "compressai.datasets.utils",
        ],
    )
    def test_out_of_scope(self, name):
        with pytest.raises(OutOfScopeError, match="out of its scope"):
            importlib.import_module(name)

    @pytest.mark.parametrize(
        ("module", "name"),
        [
            ("datasets", "ModelNetDataset"),
            ("losses", "chamfer_distance"),
            ("models", "PointNetReconstructionPccModel"),
            ("transforms", "SamplePointsV2"),
            ("zoo", "pointcloud_models"),
        ],
    )
    def test_names_out_of_scope(self, module, name):
        with pytest.raises(OutOfScopeError, match=rf"compressai\.{module}\.{name}: .*out of its scope"):
            exec(f"from compressai.{module} import {name}")
        with pytest.raises(ImportError, match="cannot import name 'nothing'"):
            exec(f"from compressai.{module} import nothing")
        ours = importlib.import_module(f"latens.{module}")
        compat.uninstall()
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(ours, name)

    def test_an_optional_import_of_point_clouds_may_fail(self):
        try:
            from compressai.models import pointcloud
        except ImportError:
            pointcloud = None
        assert pointcloud is None

    def test_pickles_find_their_classes_under_both_names(self):
        from compressai.layers import GDN

        data = pickle.dumps(GDN, protocol=0)
        assert pickle.loads(data) is GDN
        assert pickle.loads(data.replace(b"latens.layers.gdn", b"compressai.layers.gdn")) is GDN


class TestOldNames:
    def test_quantize(self):
        from compressai.entropy_models import EntropyModel

        x, means = torch.rand(1, 3, 4), torch.rand(1, 3, 4)
        model = EntropyModel()
        with pytest.warns(UserWarning, match="call quantize"):
            symbols = model._quantize(x, "symbols", means)
        assert torch.equal(symbols, model.quantize(x, "symbols", means))
        with pytest.warns(UserWarning, match="call dequantize"):
            assert torch.equal(model._dequantize(symbols, means), model.dequantize(symbols, means))

    def test_a_single_buffer_takes_its_size_from_a_checkpoint(self):
        from compressai.models.utils import _update_registered_buffer

        module = torch.nn.Module()
        module.register_buffer("table", torch.IntTensor())
        state = {"a.b.table": torch.zeros(3, 4)}
        _update_registered_buffer(module, "table", "a.b.table", state)
        assert module.table.shape == (3, 4)
        _update_registered_buffer(module, "other", "a.b.table", state, policy="register")
        assert (module.other.shape, module.other.dtype) == ((3, 4), torch.int32)
        for name, policy in (("table", "register"), ("third", "resize"), ("third", "resize_if_empty")):
            with pytest.raises(RuntimeError, match="registered"):
                _update_registered_buffer(module, name, "a.b.table", state, policy=policy)

    def test_masked_convolutions_are_not_scripted(self):
        """What CompressAI's own tests ask for; under its own name the class can be."""
        from compressai.layers import MaskedConv2d

        with pytest.raises(RuntimeError, match="as in CompressAI"):
            torch.jit.script(MaskedConv2d(3, 3, 3, padding=1))
        compat.uninstall()
        torch.jit.script(MaskedConv2d(3, 3, 3, padding=1))


class TestInstallation:
    def test_twice_is_once(self):
        before = list(sys.meta_path)
        compat.install()
        assert sys.meta_path == before

    def test_undone(self):
        import compressai.models

        assert compressai.models is latens.models
        compat.uninstall()
        compat.uninstall()
        assert not [name for name in sys.modules if name.split(".")[0] == "compressai"]
        assert importlib.util.find_spec("compressai") is None
        compat.install()
        assert importlib.import_module("compressai.models") is latens.models

    def test_not_beside_the_original(self, monkeypatch):
        compat.uninstall()
        original = types.ModuleType("compressai")
        original.__file__ = "/site-packages/compressai/__init__.py"
        monkeypatch.setitem(sys.modules, "compressai", original)
        with pytest.raises(LatensError, match="imported already, from /site-packages"):
            compat.install()
        assert sys.modules["compressai"] is original

    def test_names_may_be_registered_again(self):
        from compressai.registry import MODELS, register_model

        mine = type("Mine", (), {})
        with pytest.warns(UserWarning, match="mbt2018-mean"):
            register_model("mbt2018-mean")(mine)
        assert MODELS["mbt2018-mean"] is mine


def with_weights(model, state):
    model.load_state_dict(state)
    model.update(force=True)  # the table of scales of this one is not among the weights
    return model


def forward_shows(model, x):
    with torch.no_grad():
        return model(x)["x_hat"].clamp(0, 1)


def codes_what_it_promises(model, size=(64, 64), batch=1, promise=forward_shows):
    """Trained a step, the model decodes what it should, in as many bits, and so does a copy made from its weights."""
    torch.manual_seed(3)
    x = torch.rand(batch, 3, *size)
    model.train()
    out = model(x)
    assert out["x_hat"].shape == x.shape
    rate = sum(-torch.log2(likelihood).sum() for likelihood in out["likelihoods"].values())
    (rate + out["x_hat"].square().sum()).backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if not name.endswith("quantiles"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 1e-4 * parameter.grad / (parameter.grad.abs().max() + 1e-9)
    model.eval()
    model.update(force=True)
    with torch.no_grad():
        coded = model.compress(x)
        found = model.decompress(coded["strings"], coded["shape"])["x_hat"]
        assert torch.allclose(found, promise(model, x), atol=1e-4)
        bits = sum(-torch.log2(likelihood).sum().item() for likelihood in model(x)["likelihoods"].values())
        coded_bits = 8 * sum(len(string) for strings in coded["strings"] for string in strings)
        assert coded_bits < 1.05 * bits + 64 * batch * len(coded["strings"])
        twin = type(model).from_state_dict(copy.deepcopy(model.state_dict())).eval()
        assert twin.compress(x)["strings"] == coded["strings"]


class TestThirdParty:
    def test_a_known_model_with_other_transforms(self):
        module = third_party("meanscale_attention")
        assert issubclass(module.MeanScaleAttention, latens.models.MeanScaleHyperprior)
        assert registry.MODELS["meanscale-attention"] is module.MeanScaleAttention
        codes_what_it_promises(module.MeanScaleAttention(), size=(64, 128), batch=2)

    @pytest.mark.filterwarnings("ignore:entropy_bottleneck_channels:DeprecationWarning")
    def test_channel_slices_in_lists(self):
        codes_what_it_promises(third_party("slices").SliceModel(), size=(128, 64))

    def test_channel_groups_and_checkerboards(self):
        module = third_party("checkerboard_groups")
        assert module.setup() == ("ans", 64)
        x, unpad = module.padded(torch.rand(1, 3, 50, 70))
        assert x.shape == (1, 3, 64, 128)
        assert torch.nn.functional.pad(x, unpad).shape == (1, 3, 50, 70)
        codes_what_it_promises(module.GroupModel())

    @pytest.mark.filterwarnings("ignore:_quantize is an old name:UserWarning")
    def test_entropy_models_of_ones_own(self):
        module = third_party("own_entropy")
        model = module.LaplacianHyperprior()
        codes_what_it_promises(model, size=(64, 96), batch=2)
        # Tables longer than those of a Gaussian, because the tails are.
        gaussian = latens.entropy_models.GaussianConditional(model.gaussian_conditional.scale_table)
        gaussian.update()
        assert (model.gaussian_conditional.cdf_length > gaussian.cdf_length).all()

    def test_gaussians_that_go_around_the_constructor(self):
        module = third_party("contexts")
        torch.manual_seed(2)
        y, scales = 3 * torch.randn(2, 4, 8, 8), 0.2 + torch.rand(2, 4, 8, 8)
        strings = []
        for kind in (module.NormalConditional, latens.entropy_models.GaussianConditional):
            model = kind(module.NormalConditional().scale_table).eval()
            model.update()
            indexes = model.build_indexes(scales)
            coded = model.compress(y, indexes)
            assert torch.equal(model.decompress(coded, indexes), y.round())
            strings.append(coded)
        assert strings[0] == strings[1]

    def test_checkerboards_whose_context_is_no_convolution(self):
        module = third_party("contexts")
        for checkerboard in (module.CheckerboardLatentCodec, module.SelfMadeCheckerboard):
            torch.manual_seed(5)
            model = module.ContextModel(checkerboard)
            type(model).from_state_dict = classmethod(
                lambda cls, state, made=checkerboard: with_weights(cls(made), state)
            )
            codes_what_it_promises(model, size=(64, 128), batch=2)
        assert module.SelfMadeCheckerboard.calls > 2

    def test_slices_and_checkerboards_with_attention(self):
        module = third_party("context_slices")
        assert registry.MODELS["context-slices"] is module.ContextSlices
        codes_what_it_promises(module.ContextSlices(), size=(64, 128))

    @pytest.mark.parametrize("name", ["HPCM", "HPCMLarge"])
    @torch.no_grad()
    def test_from_coarse_to_fine(self, name):
        """The model of that name has the same checkpoints, numbers and strings."""
        kind = getattr(latens.models, name)
        sizes = {"N": 8, "M": 16, "dims": (8, 8, 12), "depths": (1, 2, 1)}
        torch.manual_seed(0)
        large = name == "HPCMLarge"
        theirs = (
            third_party("hierarchical").Hierarchical(**sizes, prior=kind._PRIOR, gains=not large).double()
        )
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for parameter in theirs.g_a.parameters():
            parameter.mul_(1.3)
        ours = kind(**sizes).double().eval()
        ours.load_state_dict(theirs.state_dict())
        tables = {
            "scale_table",
            *(f"{k}_{y}" for k in ("quantized_cdf", "cdf_length", "offset") for y in "yz"),
        }
        shapes = [{k: v.shape for k, v in m.state_dict().items() if k not in tables} for m in (ours, theirs)]
        assert shapes[0] == shapes[1]
        assert tables <= ours.state_dict().keys()
        x = torch.rand(1, 3, 256, 256, dtype=torch.float64)
        want, got = theirs(x), ours(x)
        torch.testing.assert_close(got["x_hat"], want["x_hat"], rtol=1e-9, atol=1e-9)
        for key, bits in want["bits"].items():
            torch.testing.assert_close(-got["likelihoods"][key].log2().sum(), bits, rtol=1e-9, atol=1e-9)
        theirs.update()
        coded = theirs.compress(x)
        assert len(coded["strings"][0][0]) > 1000
        assert ours.compress(x)["strings"] == coded["strings"]
        decoded = [model.decompress(**coded)["x_hat"] for model in (ours, theirs)]
        torch.testing.assert_close(*decoded, rtol=1e-9, atol=1e-9)

    def test_position_by_position_in_lists(self):
        def latens_decodes(model, x):
            # In this model, the forward pass rounds other values than the coder.
            ours = latens.models.JointAutoregressiveHierarchicalPriors(8, 10, arithmetic="reference").eval()
            ours.load_state_dict(model.state_dict())
            coded = model.compress(x)
            assert ours.compress(x)["strings"] == coded["strings"]
            return ours.decompress(**coded)["x_hat"]

        codes_what_it_promises(third_party("raster").RasterModel(), batch=2, promise=latens_decodes)

    def test_helper_methods_of_the_raster_model(self):
        model = third_party("raster_helpers").GainedRaster().eval()
        x = torch.rand(2, 3, 64, 128)
        with torch.no_grad():
            coded = model.compress(x)
            found = model.decompress(**coded)["x_hat"]
            y = model.g_a(x) * model.gain
            params = model.h_s(model.entropy_bottleneck.decompress(coded["strings"][1], coded["shape"]))
            strings, y_hat = model._scan().compress(y, params)
            assert strings == coded["strings"][0]
            assert torch.allclose(found, model.g_s(y_hat / model.gain).clamp(0, 1), atol=1e-6)

    def test_latent_codecs_and_registries(self):
        module = third_party("composed")
        x = torch.rand(1, 3, 64, 64)
        for name in ("composed", "composed-factorized"):
            net = module.train(name).eval()
            net.update()
            out = net.compress(x)
            x_hat = net.decompress(**out)["x_hat"]
            with torch.no_grad():
                assert torch.allclose(x_hat, net(x)["x_hat"].clamp(0, 1), atol=1e-4)

    def test_scripts_that_look_models_up(self, tmp_path):
        module = third_party("evaluate")
        assert {"mbt2018", "cheng2020-attn", "bmshj2018-hyperprior-vbr"} <= set(module.NAMES)
        assert module.models["mbt2018-mean"] is latens.zoo.mbt2018_mean
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            legacy = module.Factorized()
        x_hat, likelihoods = legacy(torch.rand(1, 3, 16, 16))
        assert (x_hat.shape, likelihoods.shape) == ((1, 3, 16, 16), (1, 4, 8, 8))
        model = latens.models.FactorizedPrior(4, 6)
        weights = {f"module.{key}": value for key, value in model.state_dict().items()}
        torch.save({"network": weights, "epoch": 3}, tmp_path / "checkpoint.pth.tar")
        loaded = module.load_checkpoint("mine", tmp_path / "checkpoint.pth.tar")
        (tmp_path / "test").mkdir()
        Image.new("RGB", (64, 48), (200, 100, 50)).save(tmp_path / "test" / "a.png")

        def to_tensor(image):
            return torch.tensor(list(image.tobytes())).reshape(48, 64, 3).permute(2, 0, 1) / 255

        ((psnr, bpp),) = module.evaluate(loaded, tmp_path, to_tensor)
        assert psnr > 0
        assert bpp > 0
