"""What PyTorch users do around a model: inference mode, compilation, scripting, copies."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch

from latens import format as ltn
from latens import layers, models, ops
from latens.codec import ImageCodec
from latens.codec.video import VideoCodec
from latens.entropy_models import EntropyBottleneck, EntropyBottleneckVbr, GaussianConditional
from latens.io._image import Image

SIZES = {
    "FactorizedPrior": (16, 24),
    "FactorizedPriorReLU": (16, 24),
    "ScaleHyperprior": (16, 24),
    "MeanScaleHyperprior": (16, 24),
    "JointAutoregressiveHierarchicalPriors": (16, 24),
    "ScaleHyperpriorVbr": (16, 24),
    "MeanScaleHyperpriorVbr": (16, 24),
    "JointAutoregressiveHierarchicalPriorsVbr": (16, 24),
    "Cheng2020Anchor": (16,),
    "Cheng2020Attention": (16,),
    "Cheng2020GMM": (16,),
    "Cheng2020AnchorCheckerboard": (16,),
    "Elic2022Official": (16, 144),
    "Elic2022Chandelier": (16, 144),
}
EXACT = ("FactorizedPrior", "MeanScaleHyperpriorVbr", "Cheng2020AnchorCheckerboard")


def made(name):
    torch.manual_seed(4)
    return getattr(models, name)(*SIZES[name]).eval()


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(1))


def coded(model, image):
    out = model.compress(image)
    return out["strings"], model.decompress(out["strings"], out["shape"])["x_hat"]


@pytest.mark.parametrize("name", SIZES)
class TestInferenceMode:
    def test_what_is_made_inside_codes_inside(self, name, image):
        with torch.no_grad():
            strings, pixels = coded(made(name), image)
        with torch.inference_mode():
            model = made(name)
            model.update()
            model = copy.deepcopy(model)
            found, seen = coded(model, image)
            if name in EXACT:
                model.compress(image, exact=True)
        assert torch.equal(seen, pixels)
        assert len(found[0][0]) == pytest.approx(len(strings[0][0]), rel=0.02)

    def test_what_was_used_inside_is_whole_outside(self, name, image):
        model = made(name)
        with torch.inference_mode():
            model.update()
            before = coded(model, image)
            model.load_state_dict(model.state_dict())
        with torch.no_grad():
            after = coded(model, image)
        assert after[0] == before[0]
        assert torch.equal(after[1], before[1])
        # Tensors that were born inside could not be written to here.
        model.load_state_dict(made(name).state_dict())
        for buffer in model.buffers():
            buffer.add_(0)
        out = model.train()(image)
        (out["x_hat"].sum() + sum(v.log().sum() for v in out["likelihoods"].values())).backward()


class TestChangesAreNoticed:
    @pytest.mark.parametrize("inside", [False, True])
    def test_of_tables(self, inside):
        with torch.inference_mode(inside), torch.no_grad():
            model = GaussianConditional([1.0, 2.0, 4.0])
            model.update()
            y = torch.arange(-8.0, 8).reshape(1, 1, 16)
            scales = torch.full_like(y, 1.5)
            first = model.compress(y, model.build_indexes(scales))
            model._offset.sub_(5)
            assert model.compress(y, model.build_indexes(scales)) != first
            model._offset.add_(5)
            assert model.compress(y, model.build_indexes(scales)) == first

    @pytest.mark.parametrize("inside", [False, True])
    def test_of_scales(self, inside):
        with torch.inference_mode(inside), torch.no_grad():
            model = GaussianConditional([1.0, 2.0, 4.0])
            assert model.build_indexes(torch.tensor([1.5, 3.0])).tolist() == [1, 2]
            model.scale_table.mul_(2)
            assert model.build_indexes(torch.tensor([1.5, 3.0])).tolist() == [0, 1]

    def test_tables_can_be_resized_after_coding(self):
        model = EntropyBottleneck(3)
        model.compress(torch.zeros(1, 3, 4))
        for name in ("_quantized_cdf", "_cdf_length", "_offset"):
            getattr(model, name).resize_(2, 5)


class TestCompile:
    @pytest.mark.parametrize("name", ["MeanScaleHyperprior", "Cheng2020AnchorCheckerboard"])
    @pytest.mark.parametrize("gradients", [False, True])
    def test_gives_what_the_model_gives(self, name, gradients, image):
        model = made(name)
        with torch.set_grad_enabled(gradients):
            out = torch.compile(copy.deepcopy(model), backend="aot_eager")(image)
            expected = model(image)
        torch.testing.assert_close(out["x_hat"], expected["x_hat"], rtol=0, atol=1e-5)
        for part in expected["likelihoods"]:
            torch.testing.assert_close(
                out["likelihoods"][part], expected["likelihoods"][part], rtol=0, atol=1e-4
            )


class TestScript:
    @pytest.mark.parametrize("gradients", [False, True])
    @pytest.mark.parametrize(
        "module",
        [
            layers.GDN(6),
            layers.GDN(6, inverse=True),
            layers.GDN1(6),
            layers.MaskedConv2d(6, 6, 3, padding=1),
            layers.CheckerboardMaskedConv2d(6, 6, 5, padding=2),
            layers.ResidualBlock(6, 6),
            layers.ResidualBlockWithStride(6, 6),
            layers.ResidualBlockUpsample(6, 6),
            layers.AttentionBlock(6),
            ops.LowerBound(0.1),
            ops.NonNegativeParametrizer(),
        ],
        ids=lambda module: type(module).__name__,
    )
    def test_gives_what_the_module_gives(self, module, gradients):
        x = torch.rand(2, 6, 8, 8, generator=torch.Generator().manual_seed(2)) - 0.5
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(torch.jit.script(module)(x), module(x), rtol=0, atol=1e-6)


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


def saved(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, saved])
class TestCopies:
    """Of what has been used, because that is what holds native things."""

    @pytest.mark.parametrize("name", SIZES)
    def test_of_models(self, name, copied, image):
        model = made(name)
        strings, pixels = coded(model, image)
        # Making a model exact takes its time.
        exact = model.compress(image, exact=True)["strings"] if name in EXACT else None
        again = copied(model)
        found, seen = coded(again, image)
        assert found == strings
        assert torch.equal(seen, pixels)
        assert exact is None or again.compress(image, exact=True)["strings"] == exact

    @pytest.mark.parametrize("kind", [EntropyBottleneck, EntropyBottleneckVbr])
    def test_of_entropy_models(self, kind, copied):
        model = kind(4)
        y = 5 * torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(3))
        strings = model.compress(y)
        assert copied(model).compress(y) == strings

    def test_of_codecs(self, copied):
        codec = ImageCodec()
        picture = Image(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))
        data = codec.encode(picture, 40)
        decoded = codec.decode(ltn.read(data))[0].pixels
        again = copied(codec)
        assert again.encode(picture, 40) == data
        assert np.array_equal(again.decode(ltn.read(data))[0].pixels, decoded)

    def test_of_video_codecs(self, copied):
        from latens.zoo import DEFAULT_VIDEO_MODEL

        codec = VideoCodec(DEFAULT_VIDEO_MODEL)
        assert copied(codec).model.id == codec.model.id

    def test_of_fresh_scale_space_flow(self, copied):
        model = models.ScaleSpaceFlow()
        again = copied(model)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
