"""The default model in integers against docs/pixels.md in plain NumPy, step by step."""

import numpy as np
import pytest
import torch

from latens.convert.pictures import picture_model
from latens.errors import CoderError, ModelError, ShapeError
from latens.runtime import reference
from latens.runtime.factors import QUALITY_MAX
from latens.runtime.picture import PictureModel
from tiny import network, picture

_QUALITIES = (0, 20_000, 44_444, QUALITY_MAX)


@pytest.fixture(scope="module")
def model() -> PictureModel:
    pictures = torch.from_numpy(np.stack([picture(128, 192, seed=s) for s in range(2)])).permute(0, 3, 1, 2)
    return picture_model(network(), pictures / 255.0).model


def _run(model: PictureModel, name: str, x, factors=(), samples=None):
    net = model.networks[name]
    return reference.run([stage.native() for stage in net.stages], x, factors, samples, net.limits)


def _times(x, factor, low, high):
    return reference.rescale(np.asarray(x), *factor, low, high)


def _decoded(model: PictureModel, z, symbols, quality):
    """Steps 1 to 5."""
    limit = 1 << 20
    z = np.clip(z, -1023, 1023).transpose(1, 2, 0)
    features = _run(model, "h_mean", z)
    rows, columns, channels = symbols.shape
    even = np.add.outer(np.arange(rows), np.arange(columns))[:, :, None] % 2 == 0
    first = np.where(np.arange(channels) < channels // 2, even, ~even)
    scale = model.factors["mean_scale"].at(quality)
    mean = _times(_run(model, "mean_0", features), scale, -limit, limit)
    y = np.where(first, np.clip(256 * symbols.astype(np.int64) + mean, -limit, limit), 0)
    known = _times(y, model.factors["context_scale"].at(quality), -32768, 32767)
    mean = _times(_run(model, "context", np.concatenate([known, features], 2)), scale, -limit, limit)
    return _run(model, "h_scale", z), np.where(
        first, y, np.clip(256 * symbols.astype(np.int64) + mean, -limit, limit)
    )


@pytest.mark.parametrize("quality", _QUALITIES)
def test_a_tile_is_what_the_page_says(model, quality):
    samples = picture(64, 128, seed=5)
    features = model.networks["g_a"].run(samples, (), (8, 3))
    assert (features == _run(model, "g_a", samples, (), (8, 3))).all()
    stream, lanes, sent = model.encode(model.latent(features, quality), quality, 4)
    found = model.decode(stream, (1, 2), quality, 4, lanes)
    for a, b in zip(sent, found, strict=True):
        assert (a == b).all()
    indexes, y_hat = _decoded(model, found.z, found.y, quality)
    assert (found.indexes == indexes).all()
    assert (found.y_hat == y_hat).all()
    assert found.y.any() or quality == 0
    entry = model.entry(found.y_hat, quality)
    assert (entry == _times(y_hat, model.factors["input_scale"].at(quality), -32768, 32767)).all()
    for depth, channels in ((8, 3), (16, 3), (8, 1), (12, 1)):
        rows = model.synthesis(entry.shape[1], quality, depth, channels)
        pieces = [rows.push(entry[:1]), rows.push(entry[1:]), rows.finish()]
        got = np.concatenate([piece for piece in pieces if len(piece)])
        wanted = _run(model, "g_s", entry, [model.factors["out_scale"].at(quality)], (depth, channels))
        assert (got == wanted).all()


def test_storage_gives_the_same_model_back(model):
    again = PictureModel.from_arrays(model.arrays())
    assert again.entropy_id == model.entropy_id
    stored, wanted = again.arrays(), model.arrays()
    assert stored.keys() == wanted.keys()
    assert all((stored[k] == wanted[k]).all() and stored[k].dtype == wanted[k].dtype for k in wanted)


def test_what_decides_about_symbols_is_in_the_identity(model):
    for name in ("network.h_scale.0.weight", "z.entries"):
        arrays = dict(model.arrays())
        changed = arrays[name].copy()
        changed.flat[1] += 1 if name.startswith("network") else 0
        arrays[name] = changed
        if name.startswith("network"):
            assert PictureModel.from_arrays(arrays).entropy_id != model.entropy_id
    arrays = dict(model.arrays())
    arrays["network.g_s.0.pw_in.bias"] = arrays["network.g_s.0.pw_in.bias"] + 1
    assert PictureModel.from_arrays(arrays).entropy_id == model.entropy_id


def _changed(arrays, name, change):
    found = {key: value.copy() for key, value in arrays.items()}
    found[name] = change(found[name])
    return found


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("network.g_s.0.pw_in.weight", lambda a: np.full_like(a, 32767)),
        ("network.g_s.0.pw_in.weight", lambda a: a.astype(np.int32)),
        ("network.g_s.0.pw_in.weight", lambda a: a[:-1]),
        ("network.h_mean.0.shift", lambda a: np.full_like(a, 31)),
        ("network.h_mean.0.shift", lambda a: a[:0]),
        ("network.h_scale.0.form", lambda a: np.array([99], np.int32)),
        ("network.h_scale.0.form", lambda a: a[:1]),
        ("network.h_scale.0.form", lambda a: np.append(a, a[:1])),
        ("network.g_a.limits", lambda a: a[::-1].copy()),
        ("factor.gain", lambda a: a + (1 << 30)),
        ("factor.gain", lambda a: a[:, :-1]),
        ("z_offset", lambda a: a[:, :-1]),
        ("z.sizes", lambda a: a[:-1]),
        ("y.entries", lambda a: a[::-1].copy()),
    ],
)
def test_hostile_arrays_are_refused(model, name, change):
    from latens.errors import TableError

    with pytest.raises((ModelError, TableError)):
        PictureModel.from_arrays(_changed(model.arrays(), name, change))


def test_an_array_too_many_or_too_few_is_refused(model):
    with pytest.raises(ModelError, match="surprise"):
        PictureModel.from_arrays(model.arrays() | {"surprise": np.zeros(3, np.int32)})
    for name in sorted(model.arrays())[::23]:
        arrays = dict(model.arrays())
        del arrays[name]
        with pytest.raises(ModelError):
            PictureModel.from_arrays(arrays)


def test_a_damaged_stream_is_an_error_or_other_symbols(model):
    features = model.networks["g_a"].run(picture(64, 64), (), (8, 3))
    stream, lanes, _ = model.encode(model.latent(features, 30_000), 30_000, 4)
    for cut in (0, 1, len(stream) // 2, len(stream) - 1):
        with pytest.raises(CoderError):
            model.decode(stream[:cut], (1, 1), 30_000, 4, lanes)


def test_latents_of_other_sizes_are_refused(model: PictureModel):
    steps, quality = model._two_steps, 30_000
    factors = model._step_factors(quality)
    z = np.zeros((1, 2, model.hyper), np.int16)
    y = np.zeros((4, 8, model.channels), np.int32)
    symbols, indexes = y.astype(np.int16), y.astype(np.uint8)
    assert steps.decode(factors, z, symbols).shape == y.shape
    for bad in (symbols[1:], symbols[:, 1:], symbols[:, :, 1:]):
        with pytest.raises(ShapeError):
            steps.decode(factors, z, np.ascontiguousarray(bad))
    with pytest.raises(ShapeError):
        steps.encode(factors, z, y, np.ascontiguousarray(indexes[1:]), 4)
    with pytest.raises(ShapeError):
        steps.decode(factors, np.ascontiguousarray(z[:, :, 1:]), symbols)
    with pytest.raises(ShapeError):
        steps.decode(factors[:1], z, symbols)
    m, s = factors[1]
    with pytest.raises(ShapeError):
        steps.decode([factors[0], (m[1:], s[1:])], z, symbols)
    with pytest.raises(ShapeError, match="32767"):
        steps.decode([factors[0], (np.full_like(m, 32768), s)], z, symbols)
    networks = model.networks
    with pytest.raises(ShapeError):
        networks["mean_0"].two_steps(networks["h_mean"], networks["context"])
    with pytest.raises(ShapeError):
        networks["h_mean"].two_steps(networks["mean_0"], networks["g_s"])
