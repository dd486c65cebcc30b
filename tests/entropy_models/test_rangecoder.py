"""The range coder behind the interface of all entropy coders."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from cases import CASES
from hypothesis import given
from hypothesis import strategies as st
from recipe import fill, image, numbers

import latens.models
from latens.entropy_models import (
    EntropyBottleneck,
    GaussianConditional,
    available_entropy_coders,
    get_entropy_coder,
    set_entropy_coder,
)
from latens.entropy_models.coders import coder_by_name
from latens.errors import CoderError, TableError, UnavailableError

pytest.importorskip("constriction")

TABLES = (
    np.array([[0, 9, 60000, 65536, 0], [0, 1, 2, 3, 65536]], np.int32),
    np.array([4, 5], np.int32),
    np.array([-1, 7], np.int32),
)


@pytest.fixture
def rangecoder() -> Iterator[None]:
    before = get_entropy_coder()
    set_entropy_coder("rangecoder")
    yield
    set_entropy_coder(before)


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(-(2**29), 2**29) | st.integers(-3, 12), st.integers(0, 1)), max_size=40
        ),
        max_size=4,
    )
)
def test_round_trip(calls: list[list[tuple[int, int]]]) -> None:
    coder = coder_by_name("rangecoder")
    tables = coder.register(*TABLES)
    encoder = coder.encoder()
    arrays = [np.array(call, np.int32).reshape(-1, 2).T for call in calls]
    for symbols, indexes in arrays:
        encoder.push(symbols, indexes, tables)
    decoder = coder.decoder(encoder.finish())
    for symbols, indexes in arrays:
        assert np.array_equal(decoder.decode(indexes, tables), symbols)
    decoder.finish()


def test_length_is_close_to_the_information() -> None:
    coder = coder_by_name("rangecoder")
    tables = coder.register(*TABLES)
    symbols = np.random.default_rng(0).choice([-1, 0], 20000, p=[9 / 60000, 1 - 9 / 60000]).astype(np.int32)
    encoder = coder.encoder()
    encoder.push(symbols, np.zeros_like(symbols), tables)
    bits = -np.log2(np.where(symbols == -1, 9, 59991) / 65536).sum()
    assert len(encoder.finish()) * 8 == pytest.approx(bits, abs=96)


def test_damage_and_wrong_use() -> None:
    coder = coder_by_name("rangecoder")
    with pytest.raises(TableError):
        coder.register(TABLES[0][:, ::-1].copy(), TABLES[1], TABLES[2])
    tables = coder.register(*TABLES)
    with pytest.raises(CoderError, match="indexes must be 0 to 1"):
        coder.encoder().push(np.zeros(2, np.int32), np.array([0, 2], np.int32), tables)
    with pytest.raises(CoderError, match="multiple of 4"):
        coder.decoder(b"123")
    encoder = coder.encoder()
    encoder.push(np.arange(3000, dtype=np.int32) % 9, np.zeros(3000, np.int32), tables)
    data = encoder.finish()
    decoder = coder.decoder(data)
    decoder.decode(np.zeros(30, np.int32), tables)
    with pytest.raises(CoderError, match="left over"):
        decoder.finish()


def test_choice_is_per_object_and_per_thread() -> None:
    assert available_entropy_coders() == ["ans", "rangecoder"]
    ours = GaussianConditional(None, entropy_coder="rangecoder")
    assert ours.entropy_coder.name == "rangecoder"
    assert EntropyBottleneck(2).entropy_coder.name == "ans"

    def elsewhere() -> str:
        set_entropy_coder("rangecoder")
        return EntropyBottleneck(2).entropy_coder.name

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(elsewhere).result() == "rangecoder"
    assert get_entropy_coder() == "ans"


def test_strings_of_the_two_coders_differ_and_symbols_do_not() -> None:
    y, scales = 6 * numbers("y", 2, 3, 8, 8), 3 * numbers("s", 2, 3, 8, 8).abs()
    decoded = []
    for name in available_entropy_coders():
        model = GaussianConditional(None, entropy_coder=name)
        indexes = model.build_indexes(scales)
        decoded.append(model.decompress(model.compress(y, indexes), indexes))
    assert torch.equal(*decoded)


@pytest.mark.usefixtures("rangecoder")
@pytest.mark.parametrize("name", CASES)
def test_all_models(name: str) -> None:
    torch.manual_seed(0)
    model: Any = getattr(latens.models, name)(**CASES[name])
    fill(model)
    model.eval()
    x = image(2, 64, 64)
    code = model.compress(x)
    decoded = model.decompress(code["strings"], code["shape"])["x_hat"]
    set_entropy_coder("ans")
    other: Any = getattr(latens.models, name)(**CASES[name]).eval()
    other.load_state_dict(model.state_dict())
    usual = other.compress(x)
    torch.testing.assert_close(decoded, other.decompress(usual["strings"], usual["shape"])["x_hat"])
    assert usual["strings"] != code["strings"]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(UnavailableError, match="pip install constriction"):
        EntropyBottleneck(2, entropy_coder="rangecoder")
