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
from latens.convert.pictures import picture_model, weights_of
from latens.convert.products import network_of
from latens.errors import LatensError, ModelError, OutputError, UnknownModelError, WrongWeightsError
from latens.models.latens_base import LatensBaseConfig
from latens.runtime.picture import NETWORKS
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
    assert isinstance(loaded, ReleasedPictures)
    assert loaded.id == "my-model.1_x"
    assert loaded.weights_id == hashlib.sha256(path.read_bytes()).hexdigest()
    # The file holds the integers that the weights turn into, all of them, and nothing that is not the same each time.
    made = picture_model(model).model
    want, have = made.arrays(), loaded.model.arrays()
    assert want.keys() == have.keys()
    assert all(want[key].dtype == have[key].dtype and (want[key] == have[key]).all() for key in want)
    assert loaded.entropy_id == made.entropy_id
    assert split(path.read_bytes())[1]["notes"] == "a note"
    save(loaded.base, tmp_path / "b.safetensors", "my-model.1_x", notes="a note")
    save(loaded.base, tmp_path / "c.safetensors", "my-model.1_x", notes="a note")
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()


def test_the_float_network_of_a_file_has_its_weights(tiny_model: ReleasedPictures) -> None:
    """Each tensor is what was trained, but for the bits that integers of 9 to 15 bits lack."""
    trained, base = tiny.network().state_dict(), tiny_model.base
    assert tiny_model.base is base
    assert not base.training
    assert not any(parameter.requires_grad for parameter in base.parameters())
    have = base.state_dict()
    assert have.keys() == trained.keys()
    for key, want in trained.items():
        assert have[key].dtype == torch.float32
        if "g_s_out" in key or key in ("out_scale", "log_gain", "log_inverse_gain"):
            continue  # only what they are together is of the file
        assert (have[key] - want).norm() <= 0.01 * want.norm() + 1e-3, key


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
        save(tiny_model.base, tmp_path / "a.safetensors", name)
    assert not list(tmp_path.iterdir())


def test_saving_refuses_before_it_works(tiny_model: ReleasedPictures, tmp_path: Path) -> None:
    model = tiny_model.base
    with pytest.raises(ModelError, match=r"must end in \.safetensors"):
        save(model, tmp_path / "weights.bin", "a")
    taken = tmp_path / "a.safetensors"
    taken.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        save(model, taken, "a")
    assert taken.read_bytes() == b"mine"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_cannot_be_stored_are_refused(
    value: float, tiny_model: ReleasedPictures, tmp_path: Path
) -> None:
    model = copy.deepcopy(tiny_model.base)
    with torch.no_grad():
        model.g_a[1].weight.view(-1)[3] = value
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
        with pytest.raises(ModelError, match=r"cut\.safetensors: weights: "):
            load(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ModelError, match="bytes behind the last array"):
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
        ("format", "latens-weights-1"), ("format", None), ("family", "elic"), ("family", None), ("family", "a\x1b[2J"),
        ("name", None), ("name", ""), ("name", "../../etc/passwd"), ("name", "a\x1b[2J"),
        ("scale", ""), ("scale", "{"), ("scale", "[]"), ("scale", "5"), ("scale", "null"), ("scale", "[" * 100_000),
        ("scale", '{"qualities": [0, 100]}'), ("scale", '{"qualities": [0, 0], "levels": [0, 1]}'),
        ("scale", '{"qualities": ["0", 100], "levels": [0, 1]}'),
        ("scale", '{"qualities": [0, NaN], "levels": [0, 1]}'),
        ("scale", '{"qualities": [1' + "0" * 5000 + ', 0], "levels": [0, 1]}'),
    ],
    ids=lambda v: str(v)[:40],
)  # fmt: skip
def test_hostile_metadata_are_refused(key: str, value: str | None, edited: Callable[..., Path]) -> None:
    path = edited(metadata={key: value})
    with pytest.raises(ModelError, match=r"edited\.safetensors") as caught:
        load(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "metadata",
    [
        {key: value}
        for key in ("config", "units")
        for value in (None, "", "{", "[]", "5", "null", '"N"', "{}", "[" * 100_000, '{"N": 1' + "0" * 5000 + "}")
    ]
    + [{"units": json.dumps(dict.fromkeys(NETWORKS, units))} for units in (
        [[0], []], [[0], [1] * 99], [[], [1]], [["0"], [1]], [[1 << 70], [1]], [[0], [1 << 70] * 9], 3, [3],
    )],
    ids=lambda v: str(v)[:40],
)  # fmt: skip
def test_files_without_a_float_network_code_all_the_same(
    metadata: dict[str, str | None], edited: Callable[..., Path], tiny_model: ReleasedPictures
) -> None:
    loaded = load(edited(metadata=metadata))
    assert loaded.entropy_id == tiny_model.entropy_id
    with pytest.raises(ModelError):
        _ = loaded.base


@pytest.mark.parametrize(
    "change",
    [
        {"N": 17}, {"M": 1024}, {"knots": 5}, {"hyper": 15}, {"inner": 32}, {"analysis_blocks": [1, 1]},
        {"analysis_blocks": [2, 2]}, {"synthesis_blocks": [3, 2]},
        {"analysis_blocks": [2]}, {"analysis_blocks": 2}, {"analysis_blocks": [2, 1, 1], "synthesis_blocks": [1]},
        {"synthesis_blocks": ["3", 1]}, {"N": "16"}, {"N": None}, {"N": 10**9}, {"N": float("nan")},
        {"lambda_min": -1}, {"lambda_max": 1e400}, {"unknown": 1},
    ],
    ids=str,
)  # fmt: skip
def test_configurations_that_do_not_fit_give_no_float_network(
    change: dict[str, Any], edited: Callable[..., Path]
) -> None:
    config = json.dumps({**tiny.CONFIG.to_dict(), **change})
    with pytest.raises(ModelError):
        _ = load(edited(metadata={"config": config})).base


def test_claimed_sizes_are_not_allocated(edited: Callable[..., Path]) -> None:
    """A configuration of 13 billion weights in a file of a megabyte."""
    config = LatensBaseConfig(1024, 1024, 1024, 1024, (64, 64), (64, 64), 1024)
    loaded = load(edited(metadata={"config": json.dumps(config.to_dict())}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match="claims more than"):
        _ = loaded.base
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("network.mean_0.0.weight", lambda t: None),
        ("network.mean_0.0.weight", lambda t: t[:-1].contiguous()),
        ("network.mean_0.0.weight", lambda t: t.float()),
        ("network.mean_0.0.weight", lambda t: t.flatten()),
        ("network.mean_0.0.bias", lambda t: t.fill_(2**31 - 1)),
        ("network.mean_0.0.shift", lambda t: t.fill_(255)),
        ("network.mean_0.0.form", lambda t: t.fill_(-1)),
        ("network.mean_0.0.form", lambda t: t[:-1].contiguous()),
        ("network.mean_0.limits", lambda t: t.flip(0).contiguous()),
        ("network.g_s.0.dw.form", lambda t: t.fill_(6)),
        ("network.extra", lambda t: torch.zeros(3)),
        ("factor.gain", lambda t: t.fill_(2**31 - 1)),
        ("factor.gain", lambda t: t[:, :-1].contiguous()),
        ("factor.gain", lambda t: t[0].contiguous()),
        ("z_offset", lambda t: t.float()),
        ("z_offset", lambda t: t[:-1].contiguous()),
        ("z.entries", lambda t: t.fill_(7)),
        ("y.sizes", lambda t: t.fill_(2**31 - 1)),
        ("y.offsets", lambda t: t.fill_(-(2**31))),
    ],
)  # fmt: skip
def test_hostile_arrays_are_refused(
    name: str, change: Callable[[Tensor], Tensor | None], edited: Callable[..., Path], tiny_weights: Path
) -> None:
    tensor = split(tiny_weights.read_bytes())[0].get(name, torch.zeros(1))
    with pytest.raises(LatensError, match=r"edited\.safetensors"):
        load(edited(tensors={name: change(tensor.clone())}))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("float.mean", lambda t: None),
        ("float.mean", lambda t: t.fill_(math.nan)),
        ("float.log_scale", lambda t: t.fill_(math.inf)),
        ("float.delta", lambda t: t[:-1].contiguous()),
        ("float.extra", lambda t: torch.zeros(3)),
    ],
)
def test_a_hostile_prior_is_refused_when_it_is_wanted(
    name: str, change: Callable[[Tensor], Tensor | None], edited: Callable[..., Path], tiny_weights: Path
) -> None:
    tensor = split(tiny_weights.read_bytes())[0].get(name, torch.zeros(1))
    loaded = load(edited(tensors={name: change(tensor.clone())}))
    with pytest.raises(ModelError, match="has no float network"):
        _ = loaded.base


def test_integers_of_another_model_are_refused(tiny_weights: Path, edited: Callable[..., Path]) -> None:
    """The networks of a model with other sizes, one at a time."""
    other, _ = weights_of(tiny.network(config=dataclasses.replace(tiny.CONFIG, M=48)), "other")
    have = split(tiny_weights.read_bytes())[0]
    for part in ("network.h_scale.", "network.g_s.", "network.context.", "factor.", "y."):
        swapped = {
            k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in other.items() if k.startswith(part)
        }
        removed = dict.fromkeys(k for k in have if k.startswith(part))
        if part == "y.":
            swapped = {"y.sizes": have["y.sizes"][:-1], "y.offsets": have["y.offsets"][:-1]}
            swapped["y.entries"] = have["y.entries"][: int(swapped["y.sizes"].sum())]
        with pytest.raises(ModelError, match="fit"):
            load(edited(tensors={**removed, **swapped}))


def test_integers_that_leave_another_size_are_refused(
    tiny_weights: Path, edited: Callable[..., Path]
) -> None:
    """Networks that make an index for every second position only."""
    half = torch.nn.Sequential(torch.nn.Conv2d(16, 4 * 32, 1), torch.nn.PixelShuffle(2))
    with torch.no_grad():
        made = network_of(half, [torch.rand(1, 16, 4, 4)], None, "h_scale").network
    removed = dict.fromkeys(
        k for k in split(tiny_weights.read_bytes())[0] if k.startswith("network.h_scale.")
    )
    arrays = made.arrays("network.h_scale")
    swapped = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}
    with pytest.raises(ModelError, match="h_scale: its sizes do not fit"):
        load(edited(tensors={**removed, **swapped}))


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
    with pytest.raises(UnknownModelError, match=DEFAULT_MODEL) as caught:
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
    assert isinstance(loaded, ReleasedPictures)
    assert entry.parameters == sum(p.numel() for p in loaded.base.parameters())
    # Its scales and its prior are those of its tables: what training goes on from is what the file codes with.
    again = freeze(loaded.base)
    assert (again.y_tables.entries == loaded.model.y_tables.entries).all()
    assert (again.z_tables.entries == loaded.model.z_tables.entries).all()
