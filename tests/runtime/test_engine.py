"""The native engine against plain int64 arithmetic (latens.runtime.reference), on every path."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latens import _native
from latens.errors import ModelError, ShapeError
from latens.runtime import reference

Parts = dict[str, Any]


class Draw:
    """Random stages. Weights are as large as the bound allows, or all at one end of what it allows."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def weight(self, shape: tuple[int, ...], inputs: int) -> np.ndarray:
        most = min(32767, (2**31 - 2**30) // (32768 * inputs))
        if self.number(0, 3) == 0:
            return self.rng.choice([-most - (most < 32767), most], shape).astype(np.int16)
        return self.rng.integers(-most, most + 1, shape).astype(np.int16)

    def form(self, shape: tuple[int, ...], inputs: int) -> Parts:
        return {
            "weight": self.weight(shape, inputs),
            "bias": self.rng.integers(-(2**19), 2**19, shape[0]).astype(np.int32),
            "shift": self.rng.integers(1, self.number(2, 21), shape[0]).astype(np.uint8),
        }

    def product(self, outputs: int, inputs: int, k: int = 1, gate: int | None = None) -> Parts:
        low = self.number(-32768, 32767) if self.number(0, 2) == 0 else -32768
        high = self.number(low, 32767) if self.number(0, 2) == 0 else 32767
        gate = self.number(1, 11) if gate is None else gate
        gate = gate if gate > 1 else 0
        return self.form((outputs, k, k, inputs), k * k * inputs) | {"low": low, "high": high, "gate": gate}

    def block(self, channels: int) -> reference.Stage:
        inner, hidden = self.number(1, 70), self.number(1, 70)
        return "block", {
            "pw_in": self.product(inner, channels),
            "dw": self.form((inner, 3, 3), 9),
            "pw_out": self.form((channels, 1, 1, inner), inner),
            "ffn_in": self.product(hidden, channels),
            "ffn_out": self.form((channels, 1, 1, hidden), hidden),
        }

    def factors(self, channels: int) -> tuple[np.ndarray, np.ndarray]:
        m = self.rng.integers(0, 32768, channels).astype(np.int32)
        return m, self.rng.integers(-15, 47, channels).astype(np.int32)

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        if self.number(0, 2) == 0:
            return self.rng.choice([-32768, 32767], shape).astype(np.int16)
        return self.rng.integers(-32768, 32768, shape).astype(np.int16)

    def network(self) -> dict[str, Any]:
        """Stages, and what `run` takes with them."""
        height, width, channels = self.number(1, 9), self.number(1, 20), self.number(1, 70)
        stages: list[reference.Stage] = []
        factors: list[tuple[np.ndarray, np.ndarray]] = []
        takes = self.number(0, 3) == 0
        samples = self.number(1, 16), 1 if self.number(0, 1) == 0 else 3
        if takes:
            stages.append(("input", {}))
            channels = 192
        size = 1
        for _ in range(self.number(0 if takes else 1, 5)):
            kind = self.rng.choice(["product", "depthwise", "block", "shuffle", "unshuffle", "scale"])
            if kind == "product":
                outputs = self.number(1, 70)
                stages.append(("product", self.product(outputs, channels, 1 + 2 * self.number(0, 1))))
                channels = outputs
            elif kind == "depthwise":
                stages.append(("depthwise", self.form((channels, 3, 3), 9)))
            elif kind == "block":
                stages.append(self.block(channels))
            elif kind == "scale":
                stages.append(("scale", {"channels": channels, "slot": len(factors)}))
                factors.append(self.factors(channels))
            elif kind == "unshuffle" and channels < 50 and size < 4:
                r = self.number(1, 3)
                stages.append(("unshuffle", {"r": r, "channels": channels}))
                channels, size = channels * r * r, size * r
            else:
                r = max(r for r in (1, 2, 3, 4) if channels % (r * r) == 0)
                stages.append(("shuffle", {"r": r, "channels": channels}))
                channels //= r * r
        gives = self.number(0, 3) == 0
        if gives:
            stages.append(("pixels", self.form((192, channels), channels) | {"shift": self.number(1, 22)}))
        limits = (-32768, 32767) if self.number(0, 1) else (self.number(-32768, -1), self.number(0, 32767))
        if takes:
            height, width = (8 * size * self.number(1, 3) for _ in range(2))
            depth, colours = samples
            values = self.rng.integers(0, 256 if depth <= 8 else 65536, (height, width, colours))
            x = values.astype(np.uint8 if depth <= 8 else np.uint16)
        else:
            x = self.values((height * size, width * size, len(self.first_inputs(stages[0]))))
        rest = {"samples": samples} if takes or gives else {}
        return {"stages": stages, "limits": limits, "x": x, "factors": factors, **rest}

    @staticmethod
    def first_inputs(stage: reference.Stage) -> range:
        kind, form = stage
        if kind in ("product", "pixels"):
            return range(form["weight"].shape[-1])
        if kind == "block":
            return range(form["pw_in"]["weight"].shape[-1])
        return range(len(form["weight"]) if kind == "depthwise" else form["channels"])


def make(case: dict[str, Any]) -> tuple[_native.Network, dict[str, Any]]:
    rest: dict[str, Any] = {name: case[name] for name in ("factors", "samples") if name in case}
    return _native.Network(case["stages"], case["limits"]), rest


def check(seed: int) -> None:
    draw = Draw(seed)
    case = draw.network()
    network, rest = make(case)
    x = case["x"]
    expected = reference.run(case["stages"], x, limits=case["limits"], **rest)
    result = network.run(x, **rest)
    np.testing.assert_array_equal(result, expected, f"seed {seed}")
    # The same in pieces, some of them empty.
    stream, pieces, row = network.stream(x.shape[1], **rest), [], 0
    while row < len(x):
        some = draw.number(0, 5)
        pieces.append(stream.push(x[row : row + some]))
        row += some
    pieces.append(stream.finish())
    np.testing.assert_array_equal(np.concatenate(pieces), expected, f"seed {seed}, in pieces")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_the_engine_gives_what_plain_arithmetic_gives(seed: int) -> None:
    check(seed)


@pytest.mark.parametrize("isa", ["avx512", "avx2", "sse4", "neon", "portable"])
@pytest.mark.parametrize("threads", [1, 4])
def test_every_path_gives_what_plain_arithmetic_gives(isa: str, threads: int) -> None:
    run = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_engine import ModelError, _native, check\n"
        "try: _native.Network([('input', {})], (0, 0))\n"
        "except ModelError as error: print(error); sys.exit(3)\n"
        f"assert _native.Network([('input', {{}})], (0, 0)).isa == {isa!r}\n"
        "for seed in range(25): check(seed)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", run, str(Path(__file__).parent)],
        env=os.environ | {"LATENS_ISA": isa, "LATENS_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    if result.returncode == 3 and "lacks" in result.stdout:
        pytest.skip(f"no {isa} here")
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_unknown_instruction_set_is_an_error() -> None:
    run = "from latens import _native; _native.Network([('input', {})], (0, 0))"
    result = subprocess.run(
        [sys.executable, "-c", run], env=os.environ | {"LATENS_ISA": "mmx"}, capture_output=True, text=True
    )
    assert "ModelError: LATENS_ISA" in result.stderr


def test_every_value_of_a_gate() -> None:
    values = np.arange(-32768, 32768).astype(np.int16).reshape(256, 256, 1)
    for unit in range(2, 12):
        form = {"weight": np.full((1, 1, 1, 1), 2, np.int16), "bias": np.zeros(1, np.int32)}
        form |= {"shift": np.ones(1, np.uint8), "low": -32768, "high": 32767, "gate": unit}
        result = _native.Network([("product", form)], (-32768, 32767)).run(values)
        np.testing.assert_array_equal(result, reference.gate(values.astype(np.int64), unit))
        # It is what it is named after.
        v = values / 2.0**unit
        silu = v * (1 + np.tanh(v / 2)) / 2
        assert np.abs(result / 2.0**unit - silu).max() < 1.001 / 2**unit


@given(st.integers(0, 2**32), st.sampled_from([np.int16, np.int32]))
@settings(max_examples=30, deadline=None)
def test_rescale(seed: int, kind: type) -> None:
    rng = np.random.default_rng(seed)
    limits = np.iinfo(kind)
    x: Any = rng.integers(limits.min, limits.max, (5, 7), endpoint=True).astype(kind)
    m = rng.integers(0, 32768, 7).astype(np.int32)
    s = rng.choice([-2000, -40, -32, -31, *range(-17, 64), 100, 2**31 - 1], 7).astype(np.int32)
    low, high = -(2**20), 2**20
    np.testing.assert_array_equal(_native.rescale(x, m, s, low, high), reference.rescale(x, m, s, low, high))
    expected = reference.rescale(x, m, s, -32768, 32767)
    np.testing.assert_array_equal(_native.rescale16(x, m, s), expected)


def product(outputs: int = 2, inputs: int = 3, k: int = 1, **other: Any) -> Parts:
    form = {
        "weight": np.ones((outputs, k, k, inputs), np.int16),
        "bias": np.zeros(outputs, np.int32),
        "shift": np.ones(outputs, np.uint8),
        "low": -32768,
        "high": 32767,
        "gate": 0,
    }
    return form | other


def residual(outputs: int, inputs: int, **other: Any) -> Parts:
    return {k: v for k, v in product(outputs, inputs, **other).items() if k in ("weight", "bias", "shift")}


def block(**other: Any) -> reference.Stage:
    dw = {
        "weight": np.ones((4, 3, 3), np.int16),
        "bias": np.zeros(4, np.int32),
        "shift": np.ones(4, np.uint8),
    }
    return "block", {
        "pw_in": product(4, 3),
        "dw": dw,
        "pw_out": residual(3, 4),
        "ffn_in": product(5, 3),
        "ffn_out": residual(3, 5),
    } | other


BAD: list[tuple[str, list[reference.Stage]]] = [
    ("1 to 1024 stages", []),
    (r"stage 0 \(product\).*channels, got 0", [("product", product(0))]),
    (r"stage 0 \(product\).*channels, got 0", [("product", product(2, 0))]),
    (r"stage 1 \(product\).*takes 3 channels, but 2", [("product", product()), ("product", product())]),
    (
        r"stage 1 \(block\).* 3 channels, but 2|stage 1 \(block, pw_in\).*3 channels, but 2",
        [("product", product()), block()],
    ),
    (r"stage 0 \(block, pw_out\).*give 3 channels", [block(pw_out=residual(4, 4))]),
    (r"stage 0 \(block, ffn_out\).*takes 4 channels, but 5", [block(ffn_out=residual(3, 4))]),
    (r"stage 0 \(block, ffn_in\).*1x1", [block(ffn_in=product(5, 3, 3))]),
    (r"stage 0 \(block, dw\).*lacks bias", [block(dw={"weight": np.ones((4, 3, 3), np.int16)})]),
    (r"stage 0 \(product\).*shift.*got 0", [("product", product(shift=np.zeros(2, np.uint8)))]),
    (r"stage 0 \(product\).*shift.*got 31", [("product", product(shift=np.full(2, 31, np.uint8)))]),
    (r"stage 0 \(product\).*ordered", [("product", product(low=3, high=2))]),
    (r"stage 0 \(product\).*16 bits", [("product", product(high=32768))]),
    (r"stage 0 \(product\).*gate", [("product", product(gate=12))]),
    (r"stage 0 \(product\).*gate", [("product", product(gate=1))]),
    (r"stage 0 \(product\).*3x3", [("product", product(k=5))]),
    (r"stage 0 \(product\).*bias", [("product", product(bias=np.zeros(3, np.int32)))]),
    (r"stage 0 \(product\).*bias.*type", [("product", product(bias=np.zeros(2, np.int64)))]),
    (r"stage 0 \(product\).*lacks low", [("product", {k: v for k, v in product().items() if k != "low"})]),
    (r"stage 1 \(input\)", [("product", product()), ("input", {})]),
    (
        r"stage 0 \(pixels\).*last",
        [
            ("pixels", residual(192, 3) | {"weight": np.ones((192, 3), np.int16), "shift": 3}),
            ("product", product()),
        ],
    ),
    (
        r"stage 0 \(pixels\).*192",
        [("pixels", residual(64, 3) | {"weight": np.ones((64, 3), np.int16), "shift": 3})],
    ),
    (
        r"stage 0 \(pixels\).*22",
        [("pixels", residual(192, 3) | {"weight": np.ones((192, 3), np.int16), "shift": 23})],
    ),
    (r"stage 1 \(shuffle\).*multiple of 4", [("product", product()), ("shuffle", {"r": 2})]),
    (r"stage 1 \(shuffle\).*16", [("product", product()), ("shuffle", {"r": 0})]),
    (r"stage 1 \(unshuffle\).*16", [("product", product()), ("unshuffle", {"r": 2**62})]),
    (r"stage 1 \(unshuffle\).*channels", [("product", product(100)), ("unshuffle", {"r": 16})]),
    (r"stage 1 \(scale\).*slot", [("product", product()), ("scale", {"channels": 2, "slot": -1})]),
    (
        r"stage 1 \(scale\).*3 channels, but 2",
        [("product", product()), ("scale", {"channels": 3, "slot": 0})],
    ),
    (r"stage 1 is of an unknown kind: tanh", [("product", product()), ("tanh", {})]),
]


@pytest.mark.parametrize(("message", "stages"), BAD)
def test_bad_networks_are_refused_by_name(message: str, stages: list[reference.Stage]) -> None:
    with pytest.raises(ModelError, match=message):
        _native.Network(stages, (-32768, 32767))


@pytest.mark.parametrize("limits", [(1, 0), (-32769, 0), (0, 32768)])
def test_bad_limits_are_refused(limits: tuple[int, int]) -> None:
    with pytest.raises(ModelError, match="limits"):
        _native.Network([("product", product())], limits)


def test_the_bound_is_exact() -> None:
    def network(bias: int, weights: int, limits: tuple[int, int] = (-32768, 32767)) -> _native.Network:
        form = product(1, 2, weight=np.full((1, 1, 1, 2), weights, np.int16), bias=np.array([bias], np.int32))
        return _native.Network([("product", form)], limits)

    highest = 2 * 32767 * 32767
    assert network(2**31 - 2 - highest, 32767).bounds()[0].tolist() == [[-32768, 32767]]
    with pytest.raises(ModelError, match=r"stage 0 \(product\): sums of output 0 can reach 2147483648"):
        network(2**31 - 1 - highest, 32767)
    network(-(2**31) - 1 + 2 * 32768 * 32767, 32767)
    with pytest.raises(ModelError, match="can reach -2147483649"):
        network(-(2**31) - 2 + 2 * 32768 * 32767, 32767)
    # Narrower inputs leave more.
    network(2**31 - 2 - 20, 1, (-10, 10))
    with pytest.raises(ModelError, match="32 bits"):
        network(2**31 - 1 - 20, 1, (-10, 10))


def test_limits_follow_from_stage_to_stage() -> None:
    gated = product(2, 1, weight=np.full((2, 1, 1, 1), 4, np.int16), gate=8)
    around = {
        "weight": np.ones((2, 3, 3), np.int16),
        "bias": np.full(2, 7, np.int32),
        "shift": np.ones(2, np.uint8),
    }
    stages: list[reference.Stage] = [
        ("product", gated),
        ("depthwise", around),
        ("unshuffle", {"r": 2}),
        ("scale", {"channels": 8, "slot": 0}),
    ]
    bounds = _native.Network(stages, (-100, 50)).bounds()
    assert bounds[0].tolist() == [[-(279 * 256 // 1000) - 2, 100]] * 2
    low, high = (9 * -73 + 8) // 2, (9 * 100 + 8) // 2
    assert bounds[1].tolist() == [[low, high]] * 2
    assert bounds[2].tolist() == [[low, high]] * 8
    assert bounds[3].tolist() == [[-32768, 32767]] * 8
    # Where a kernel reaches outside there is zero, but not in its middle.
    assert _native.Network([("depthwise", around)], (10, 20)).bounds()[0].tolist() == [[9, 94]] * 2


def test_bad_calls_are_refused() -> None:
    network = _native.Network(
        [("product", product()), ("scale", {"channels": 2, "slot": 0}), ("unshuffle", {"r": 2})],
        (-32768, 32767),
    )
    x = np.zeros((4, 6, 3), np.int16)
    one = np.ones(2, np.int32)
    good = [(one, one)]
    network.run(x, good)
    calls: dict[str, tuple[Any, ...]] = {
        "1 scales, got 0": (x,),
        "got 3": (x, [(np.ones(3, np.int32), np.ones(3, np.int32))]),
        "32767": (x, [(one * 32768, one)]),
        "-15 to 46": (x, [(one, one * 47)]),
        "multiple": (x[:3], good),
        "1 to": (x[:0], good),
        "width, 3": (x[..., :2].copy(), good),
        "int16": (x.astype(np.int32), good),
        "neither": (x, good, (8, 3)),
    }
    for bad, arguments in calls.items():
        with pytest.raises(ShapeError, match=bad):
            network.run(*arguments)
    stream = network.stream(6, good)
    with pytest.raises(ShapeError, match="width 6"):
        stream.push(x[:, :4].copy())
    stream.push(x[:3])
    with pytest.raises(ShapeError, match="multiple"):
        stream.finish()
    stream.push(x[:1])
    assert stream.finish().shape == (0, 3, 8)
    for rows in (x, x[:0]):
        with pytest.raises(ShapeError, match="finished"):
            stream.push(rows)
    with pytest.raises(ShapeError, match="finished"):
        stream.finish()
    pixels = _native.Network([("input", {})], (0, 0))
    for depth, channels in ((0, 3), (17, 3), (8, 2)):
        kind = np.uint8 if depth <= 8 else np.uint16
        with pytest.raises(ShapeError, match="1 to 16 bits"):
            pixels.run(np.zeros((8, 8, channels), kind), samples=(depth, channels))
