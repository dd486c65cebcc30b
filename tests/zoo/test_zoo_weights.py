"""Weights files: what is saved comes back, what is damaged, hostile or not what was released is refused."""

import copy
import dataclasses
import hashlib
import json
import math
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

import tiny
from latens.convert import freeze
from latens.errors import LatensError, ModelError, OutputError, UnknownModelError, WrongWeightsError
from latens.models.latens_base import LatensBaseConfig
from latens.runtime.released import ReleasedPictures
from latens.zoo import DEFAULT_MODEL, ModelCard, card, cards, load, register_card, save
from latens.zoo.weights import load_released


def split(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a weights file."""
    length = int.from_bytes(data[:8], "little")
    return load_tensors(data), json.loads(data[8 : 8 + length])["__metadata__"]


@pytest.fixture
def edited(tiny_weights: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a copy of the tiny weights with some tensors and metadata replaced; None removes."""

    def edit(
        tensors: dict[str, Tensor | None] | None = None, metadata: dict[str, str | None] | None = None
    ) -> Path:
        have, about = split(tiny_weights.read_bytes())
        new = {**have, **(tensors or {})}
        told = {**about, **(metadata or {})}
        path = tmp_path / "edited.safetensors"
        path.write_bytes(
            save_tensors(
                {k: v for k, v in new.items() if v is not None},
                {k: v for k, v in told.items() if v is not None},
            )
        )
        return path

    return edit


def test_saved_weights_come_back(tmp_path: Path) -> None:
    model = tiny.network()
    path = tmp_path / "a.safetensors"
    save(model, path, "my-model.1_x", notes="a note")
    loaded = load(path)
    assert loaded.id == "my-model.1_x"
    assert loaded.weights_id == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not loaded.network.training
    for key, value in loaded.network.state_dict().items():
        want = model.state_dict()[key]
        assert value.dtype == torch.float32
        assert torch.equal(value, want.half().float() if want.ndim == 4 else want)
        assert not value.requires_grad
    # The integers are those of the weights as stored, not as trained.
    assert loaded.entropy.entropy_id == freeze(loaded.network).entropy_id
    assert split(path.read_bytes())[1]["notes"] == "a note"
    save(model, tmp_path / "b.safetensors", "my-model.1_x", notes="a note")
    assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes()


def test_a_file_that_changes_is_read_again(
    tiny_weights: Path, edited: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(tiny_weights.read_bytes())
    first = load(path)
    assert load(str(path)) is first
    edited(metadata={"name": "other"}).replace(path)
    assert load(path).id == "other"


@pytest.mark.parametrize(
    "name", ["", "Upper", "a/b", "../a", ".a", "-a", "a b", "é", "a" * 65, "a\x1b[31m", "a\n"]
)
def test_names_that_files_cannot_carry_are_refused(
    name: str, tiny_model: ReleasedPictures, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="model name"):
        save(tiny_model.network, tmp_path / "a.safetensors", name)
    assert not list(tmp_path.iterdir())


def test_saving_refuses_before_it_works(tiny_model: ReleasedPictures, tmp_path: Path) -> None:
    model = tiny_model.network
    with pytest.raises(ModelError, match=r"must end in \.safetensors"):
        save(model, tmp_path / "weights.bin", "a")
    taken = tmp_path / "a.safetensors"
    taken.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        save(model, taken, "a")
    assert taken.read_bytes() == b"mine"


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e6])
def test_weights_that_cannot_be_stored_are_refused(
    value: float, tiny_model: ReleasedPictures, tmp_path: Path
) -> None:
    model = copy.deepcopy(tiny_model.network)
    with torch.no_grad():
        model.g_a[1].weight.view(-1)[3] = value  # convolutions are stored in float16, which ends at 65,504
    with pytest.raises(ModelError, match=r"g_a\.1\.weight has values that are not finite"):
        save(model, tmp_path / "a.safetensors", "a")
    assert not list(tmp_path.iterdir())


# ---- files that are not what they should be


def test_what_cannot_be_read_names_the_file_and_the_cause(tmp_path: Path) -> None:
    huge = tmp_path / "huge.safetensors"
    with huge.open("wb") as file:
        file.truncate((1 << 30) + 1)
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path, error, cause in (
        (tmp_path / "none.safetensors", UnknownModelError, "No such file"),
        (tmp_path, UnknownModelError, "not a regular file"),
        (tmp_path / "pipe.safetensors", UnknownModelError, "not a regular file"),
        (Path("/dev/zero"), UnknownModelError, "not a regular file"),
        (huge, ModelError, "larger than"),
        (tmp_path / ("a" * 300 + ".safetensors"), UnknownModelError, "too long"),
        (tmp_path / "a\0.safetensors", UnknownModelError, "null"),
    ):
        with pytest.raises(error, match=cause):
            load(path)
    with pytest.raises(UnknownModelError, match=r"a\\x1b\[31m"):
        load(tmp_path / "a\x1b[31m.safetensors")


def test_truncated_files_are_refused(tiny_weights: Path, tmp_path: Path) -> None:
    data = tiny_weights.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    path = tmp_path / "cut.safetensors"
    for length in (0, 1, 7, 8, 9, header - 1, header, header + 1, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError, match=r"cut\.safetensors: damaged"):
            load(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ModelError, match="damaged"):
        load(path)


def test_random_damage_gives_a_model_error_or_other_weights(tiny_weights: Path, tmp_path: Path) -> None:
    """The hash tells other weights apart; what must never happen is any other exception."""
    data = tiny_weights.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.safetensors"
    original = load(tiny_weights)
    refused = 0
    for trial in range(90):
        # Most of them where structure is.
        position = int(rng.integers(header if trial % 6 else len(data)))
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            assert load(path).weights_id != original.weights_id
        except LatensError:
            refused += 1
    assert refused > 40


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "latens-weights-2"), ("format", None), ("architecture", "elic"), ("architecture", None),
        ("name", None), ("name", ""), ("name", "../../etc/passwd"), ("name", "a\x1b[2J"), ("config", None),
        ("config", "{"), ("config", "[]"), ("config", "5"), ("config", "null"), ("config", '"N"'),
        ("config", "[" * 100_000), ("config", '{"N": 1' + "0" * 5000 + "}"), ("config", '{"size": 3}'),
    ],
    ids=lambda v: str(v)[:20],
)  # fmt: skip
def test_hostile_metadata_are_refused(key: str, value: str | None, edited: Callable[..., Path]) -> None:
    path = edited(metadata={key: value})
    with pytest.raises(ModelError, match=r"edited\.safetensors"):
        load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"N": 17}, {"M": 1024}, {"knots": 5}, {"hyper": 15}, {"inner": 32}, {"analysis_blocks": [1, 1]},
        {"analysis_blocks": [2]}, {"analysis_blocks": 2}, {"analysis_blocks": [2, 1, 1], "synthesis_blocks": [1]},
        {"synthesis_blocks": ["3", 1]}, {"N": "16"}, {"N": None}, {"N": 10**9}, {"N": float("nan")},
        {"lambda_min": -1}, {"lambda_max": 1e400}, {"unknown": 1},
    ],
    ids=str,
)  # fmt: skip
def test_configurations_that_do_not_fit_are_refused(
    change: dict[str, Any], edited: Callable[..., Path]
) -> None:
    config = json.dumps({**tiny.CONFIG.to_dict(), **change})
    with pytest.raises(ModelError):
        load(edited(metadata={"config": config}))


def test_claimed_sizes_are_not_allocated(edited: Callable[..., Path]) -> None:
    """A configuration of 13 billion weights in a file of two megabytes."""
    config = LatensBaseConfig(1024, 1024, 1024, 1024, (64, 64), (64, 64), 1024)
    path = edited(metadata={"config": json.dumps(config.to_dict())})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match="claims more than"):
        load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("network.mean_0.weight", lambda t: None),
        ("network.extra", lambda t: torch.zeros(3)),
        ("network.mean_0.weight", lambda t: t[:-1].contiguous()),
        ("network.mean_0.bias", lambda t: t.fill_(math.nan)),
        ("network.mean_0.bias", lambda t: t.fill_(math.inf)),
        ("entropy.levels.0.thresholds.0", lambda t: None),
        ("entropy.levels.0.thresholds.0", lambda t: t.to(torch.bfloat16)),
        ("entropy.levels.0.thresholds.0", lambda t: t.flip(0)),
        ("entropy.z.entries", lambda t: t.fill_(7)),
        ("entropy.y.sizes", lambda t: t.fill_(2**31 - 1)),
    ],
)  # fmt: skip
def test_hostile_tensors_are_refused(
    name: str, change: Callable[[Tensor], Tensor | None], edited: Callable[..., Path], tiny_weights: Path
) -> None:
    tensor = split(tiny_weights.read_bytes())[0].get(name, torch.zeros(1))
    with pytest.raises(LatensError, match=r"edited\.safetensors"):
        load(edited(tensors={name: change(tensor.clone())}))


def test_integers_of_another_model_are_refused(tiny_weights: Path, edited: Callable[..., Path]) -> None:
    other = freeze(tiny.network(config=dataclasses.replace(tiny.CONFIG, M=48)))
    tensors = {f"entropy.{k}": torch.from_numpy(v) for k, v in other.tensors().items()}
    with pytest.raises(ModelError, match="do not fit its networks"):
        load(edited(tensors=tensors))


def test_integers_that_leave_another_size_are_refused(edited: Callable[..., Path]) -> None:
    """Networks that make an index for every second position only."""
    model = tiny.network()
    convs = [m for m in model.h_scale if not isinstance(m, torch.nn.PixelShuffle)]
    convs[2] = torch.nn.Conv2d(192, 160, 1)
    twice = [torch.nn.PixelShuffle(2)]
    model.h_scale = torch.nn.Sequential(*convs[:8], *twice, *convs[8:])
    tensors: dict[str, Tensor | None] = {
        f"entropy.{k}": torch.from_numpy(v) for k, v in freeze(model).tensors().items()
    }
    with pytest.raises(ModelError, match="do not fit its networks"):
        load(edited(tensors=tensors))


# ---- released models


@pytest.fixture
def released(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Registers the tiny model as released."""
    module = sys.modules["latens.zoo.cards"]
    monkeypatch.setattr(module, "_CARDS", {c.id: c for c in cards()})
    load_released.cache_clear()

    def make(name: str = "tiny-1", sha256: str | None = None) -> None:
        digest = sha256 or hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
        made = ModelCard(name, "", str(tiny_weights), digest, "Apache-2.0", (), "", 1, (1, 1), (0.0, 1.0))
        register_card(lambda: made)

    yield make
    load_released.cache_clear()


def test_a_released_model_loads_by_its_name(released: Callable[..., None]) -> None:
    released()
    assert load("tiny-1").id == "tiny-1"
    assert "tiny-1" in [c.id for c in cards()]


def test_other_bytes_than_those_released_are_refused(released: Callable[..., None]) -> None:
    released(sha256="0" * 64)
    with pytest.raises(WrongWeightsError, match="tiny-1 are not those that were released"):
        load("tiny-1")


def test_a_released_file_of_another_name_is_refused(released: Callable[..., None]) -> None:
    released("tiny-2")
    with pytest.raises(WrongWeightsError, match="tiny-2 call themselves tiny-1"):
        load("tiny-2")


@pytest.mark.parametrize("name", ["latens-base-999", "", "LATENS-BASE-1", "a\x1b[31m"])
def test_unknown_names_list_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownModelError, match="latens-base-6") as caught:
        load(name)
    assert str(caught.value).isprintable()


def test_a_name_from_a_file_is_never_a_path(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_weights.parent)
    assert load(tiny_weights.name).id == "tiny-1"
    with pytest.raises(UnknownModelError):
        load_released(tiny_weights.name)


def test_a_name_cannot_be_registered_twice(released: Callable[..., None]) -> None:
    released()
    with pytest.raises(ValueError, match="twice"):
        released()


def test_the_shipped_default_model() -> None:
    entry = card(DEFAULT_MODEL)
    if not entry.path.exists():
        pytest.skip("the default model's weights are not in this checkout")
    assert entry.path.stat().st_size <= 16_000_000
    loaded = load()
    assert loaded.id == DEFAULT_MODEL
    assert loaded.entropy.entropy_id == freeze(loaded.network).entropy_id
    assert entry.parameters == sum(p.numel() for p in loaded.network.parameters())
