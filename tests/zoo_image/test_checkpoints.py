"""Reading checkpoints: names of all ages, and files that want to do more than hold weights."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from latens.errors import LimitError, ModelError
from latens.zoo import pretrained
from latens.zoo.pretrained import load_pretrained, read_checkpoint, rename_key

WEIGHTS = OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.tensor([1, 2], dtype=torch.int32))


def same(found, expected=WEIGHTS):
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("g_a.0.weight", "g_a.0.weight"),
        ("module.g_a.0.weight", "g_a.0.weight"),
        ("g_a.0.module.weight", "g_a.0.module.weight"),
        ("g_s.2.downsample.bias", "g_s.2.skip.bias"),
        ("module.g_s.2.downsample.bias", "g_s.2.skip.bias"),
        ("entropy_bottleneck._biases.3", "entropy_bottleneck._bias3"),
        ("entropy_bottleneck._matrices.0", "entropy_bottleneck._matrix0"),
        ("module.entropy_bottleneck._factors.1", "entropy_bottleneck._factor1"),
        ("entropy_bottleneck.matrices.0", "entropy_bottleneck.matrices.0"),
        ("entropy_bottleneck._matrix0", "entropy_bottleneck._matrix0"),
        ("entropy_bottleneck.quantiles", "entropy_bottleneck.quantiles"),
    ],
)
def test_names(old, new):
    assert rename_key(old) == new
    assert load_pretrained({old: 1}) == {new: 1}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda w: {"network": w},
    ],
)
def test_files_of_torch(tmp_path, zipped, wrap):
    torch.save(wrap(WEIGHTS), tmp_path / "w.pth.tar", _use_new_zipfile_serialization=zipped)
    assert same(read_checkpoint(tmp_path / "w.pth.tar"))


def test_safetensors_by_content(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.pth")
    assert same(read_checkpoint(tmp_path / "w.pth"))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False, None], ids=["zip", "legacy", "bare"])
def test_code_in_a_file_is_not_run(tmp_path, zipped):
    path, proof = tmp_path / "w.pth", tmp_path / "proof"
    content = {"a": torch.zeros(2), "b": Evil(proof)}
    if zipped is None:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="could run code"):
        read_checkpoint(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([torch.zeros(2)], "expected weights by name, but got list"),
        ({}, "expected weights by name"),
        (torch.zeros(2), "but got Tensor"),
        ({"a": 3}, "a is int"),
        ({1: torch.zeros(2)}, "1 is Tensor"),
        ({"state_dict": {"a": {"b": torch.zeros(2)}}}, "a is dict"),
        ({"a": torch.tensor([1.0, float("nan")])}, "a has values that are not finite"),
        ({"a": torch.tensor([1.0, float("-inf")])}, "a has values that are not finite"),
        ({"a": torch.zeros(1).expand(1 << 40)}, "a has more elements than are stored"),
    ],
)
def test_files_of_other_things(tmp_path, content, says):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=says):
        read_checkpoint(tmp_path / "w.pth")


def files():
    buffer = io.BytesIO()
    torch.save(WEIGHTS, buffer)
    zipped = buffer.getvalue()
    buffer = io.BytesIO()
    torch.save(WEIGHTS, buffer, _use_new_zipfile_serialization=False)
    return {
        "empty": b"",
        "text": b"hello",
        "half zip": zipped[: len(zipped) // 2],
        "zip without its head": zipped[100:],
        "half legacy": buffer.getvalue()[:-20],
        "bare pickle, cut": pickle.dumps({"a": 1})[:-3],
        "zeros": bytes(1000),
        "safetensors, huge header": struct.pack("<Q", 1 << 60) + b"{}",
        "safetensors, cut": struct.pack("<Q", 20) + b'{"a":',
        "web page": b"<html><body>404</body></html>",
    }


@pytest.mark.parametrize("name", files())
def test_damage(tmp_path, name):
    (tmp_path / "w.pth").write_bytes(files()[name])
    with pytest.raises(ModelError, match=r"w\.pth"):
        read_checkpoint(tmp_path / "w.pth")


def test_no_file(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        read_checkpoint(tmp_path / "none.pth")


def test_sizes_are_checked_before_anything_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "MAX_BYTES", 100_000)
    torch.save({"a": torch.zeros(30_000)}, tmp_path / "large.pth")
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", bytes(200_000))
    assert (tmp_path / "bomb.pth").stat().st_size < 1000
    for name in ("large.pth", "bomb.pth"):
        with pytest.raises(LimitError, match="at most 100,000"):
            read_checkpoint(tmp_path / name)
