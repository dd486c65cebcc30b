"""SOAP against a plain twin in NumPy that follows the paper: moments outside, everything dense, float64."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from latens.train.soap import Soap

Array = npt.NDArray[np.float64]


class Twin:
    """SOAP of one matrix as published: the first moment is kept outside the basis, and turned at each step."""

    def __init__(
        self, weight: Array, sides: tuple[bool, bool], refresh: int, turn: int, lr: float, beta: float
    ) -> None:
        self.weight, self.sides, self.refresh, self.turn = weight.copy(), sides, refresh, turn
        self.lr, self.beta, self.steps = lr, beta, 0
        self.first = self.second = np.zeros_like(weight)
        self.factors: list[Array] = []
        self.bases: list[Array] = []

    def _turned(self, m: Array) -> Array:
        return self.bases[0].T @ m @ self.bases[1]

    def step(self, g: Array) -> None:
        products = [g @ g.T, g.T @ g]
        if not self.factors:
            self.factors = products
            self.bases = [
                np.linalg.eigh(f)[1][:, ::-1] if side else np.eye(len(f))
                for f, side in zip(products, self.sides, strict=True)
            ]
        self.steps += 1
        self.first = 0.95 * self.first + 0.05 * g
        self.second = self.beta * self.second + (1 - self.beta) * self._turned(g) ** 2
        mean = self._turned(self.first) / (1 - 0.95**self.steps)
        change = mean / (np.sqrt(self.second / (1 - self.beta**self.steps)) + 1e-8)
        self.weight -= self.lr * self.bases[0] @ change @ self.bases[1].T
        self.factors = [0.9 * f + 0.1 * p for f, p in zip(self.factors, products, strict=True)]
        if (self.steps + self.turn) % self.refresh == 0:
            for axis in (0, 1):
                if self.sides[axis]:
                    basis, factor = self.bases[axis], self.factors[axis]
                    order = np.argsort(-np.einsum("ij,ik,kj->j", basis, factor, basis))
                    self.bases[axis] = np.linalg.qr(factor @ basis[:, order])[0]
                    self.second = np.take(self.second, order, axis)


@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        ((20, 20), (True, True)),
        ((18, 2, 3, 3), (True, True)),
        ((24, 40), (True, False)),
        ((40, 24), (False, True)),
        ((8, 30), (False, False)),
        ((12, 1, 3, 3), (False, False)),
        ((25,), (False, False)),
    ],
)
@pytest.mark.parametrize("turn", [0, 1])
def test_against_a_dense_twin(shape: tuple[int, ...], sides: tuple[bool, bool], turn: int) -> None:
    rng = np.random.default_rng(1)
    start = rng.normal(size=shape)
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    idle = [torch.nn.Parameter(torch.ones(3)) for _ in range(turn)]
    optimiser = Soap([*idle, parameter], lr=0.1, betas=(0.95, 0.97), factor_beta=0.9, refresh=4, largest=32)
    flat = start.reshape(len(start), -1)
    twin = Twin(flat, sides, refresh=4, turn=turn, lr=0.1, beta=0.97)
    # Gradients with strong and weak directions, as those of networks.
    scale = np.geomspace(1, 1e-2, flat.shape[1])
    for _ in range(15):
        gradient = rng.normal(size=flat.shape) * scale
        twin.step(gradient)
        parameter.grad = torch.from_numpy(gradient.reshape(shape).copy())
        optimiser.step()
    np.testing.assert_allclose(parameter.detach().numpy().reshape(flat.shape), twin.weight, rtol=0, atol=1e-6)
    assert np.abs(twin.weight - flat).max() > 0.5
    assert all(torch.equal(p, torch.ones(3)) for p in idle)


def test_a_basis_makes_a_badly_conditioned_problem_easy() -> None:
    """Least squares with correlated inputs: Adam, which sees one weight at a time, is far behind."""
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.normal(size=(24, 24)))[0]
    inputs = torch.from_numpy(rng.normal(size=(500, 24)) * np.geomspace(1, 0.01, 24) @ turned)
    wanted = torch.from_numpy(rng.normal(size=(24, 24)))

    def loss_after(make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]) -> float:
        weight = torch.nn.Parameter(torch.zeros(24, 24, dtype=torch.float64))
        optimiser = make([weight])
        rate = optimiser.param_groups[0]["lr"]
        for step in range(200):
            optimiser.param_groups[0]["lr"] = rate * (1 - step / 200)
            loss = ((weight - wanted) @ inputs.T).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return float(loss.detach())

    adam = min(
        loss_after(lambda p, lr=lr: torch.optim.Adam(p, lr, (0.95, 0.95))) for lr in (0.1, 0.2, 0.3, 0.5)
    )
    assert loss_after(lambda p: Soap(p, 0.3, refresh=5)) < 0.2 * adam


def test_state_survives_a_file_bit_for_bit() -> None:
    def problem() -> tuple[list[torch.nn.Parameter], Soap]:
        torch.manual_seed(3)
        parameters = [
            torch.nn.Parameter(torch.randn(20, 24)),
            torch.nn.Parameter(torch.randn(16, 16, 3, 3)),
            torch.nn.Parameter(torch.randn(20)),
        ]
        return parameters, Soap(parameters, refresh=3)

    def steps(parameters: list[torch.nn.Parameter], optimiser: Soap, seeds: range) -> None:
        for seed in seeds:
            torch.manual_seed(seed)
            for parameter in parameters:
                parameter.grad = torch.randn_like(parameter)
            optimiser.step()

    whole, whole_optimiser = problem()
    steps(whole, whole_optimiser, range(10))
    half, half_optimiser = problem()
    steps(half, half_optimiser, range(5))
    buffer = io.BytesIO()
    torch.save({"p": [p.detach() for p in half], "o": half_optimiser.state_dict()}, buffer)
    state: dict[str, Any] = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    again, again_optimiser = problem()
    with torch.no_grad():
        for parameter, value in zip(again, state["p"], strict=True):
            parameter.copy_(value)
    again_optimiser.load_state_dict(state["o"])
    steps(again, again_optimiser, range(5, 10))
    for a, b in zip(whole, again, strict=True):
        assert torch.equal(a, b)


def test_gradients_of_zero_and_missing_ones_do_no_harm() -> None:
    used, unused = torch.nn.Parameter(torch.ones(20, 20)), torch.nn.Parameter(torch.ones(20, 20))
    optimiser = Soap([used, unused], refresh=2)
    for _ in range(5):
        used.grad = torch.zeros(20, 20)
        optimiser.step()
    assert torch.equal(used, torch.ones(20, 20))
    assert unused not in optimiser.state


@pytest.mark.parametrize(
    "options", [{"lr": -1.0}, {"eps": 0.0}, {"betas": (1.0, 0.9)}, {"factor_beta": 1.0}, {"refresh": 0}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        Soap([torch.nn.Parameter(torch.ones(2))], **options)


def test_closures_are_refused() -> None:
    with pytest.raises(NotImplementedError):
        Soap([torch.nn.Parameter(torch.ones(2))]).step(lambda: 0.0)


@pytest.mark.parametrize("seed", range(4))
def test_gradients_that_are_mostly_zero_have_a_basis(seed: int) -> None:
    """In float32 LAPACK gives up on most of these."""
    torch.manual_seed(seed)
    weight = torch.nn.Parameter(torch.zeros(192, 64))
    weight.grad = torch.zeros_like(weight)
    alive = torch.randperm(192)[:75]
    weight.grad[alive] = torch.randn(75, 1) @ torch.randn(1, 64)
    optimiser = Soap([weight], lr=0.1)
    optimiser.step()
    assert weight.isfinite().all()
    assert (weight[alive] != 0).any()


def degenerate(kind: str) -> torch.Tensor:
    """Gradients whose factors have few, equal or tiny eigenvalues, or none."""
    torch.manual_seed(7)
    if kind == "rank 1":
        return torch.randn(48, 1) @ torch.randn(1, 32)
    if kind == "one element":
        return torch.zeros(48, 32).index_put_((torch.tensor(5), torch.tensor(3)), torch.tensor(2.0))
    if kind == "orthogonal":
        return torch.linalg.qr(torch.randn(48, 32))[0]
    if kind == "tiny":
        return 1e-30 * torch.randn(48, 32)
    if kind == "wide range":
        return torch.randn(48, 32) * torch.logspace(0, -30, 32)
    return torch.full((48, 32), 1e25)  # its squares are beyond float32


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", ["rank 1", "one element", "orthogonal", "tiny", "wide range", "huge"])
def test_any_factor_has_a_basis(kind: str, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the decomposition does not converge, which depends on the machine's LAPACK."""

    def diverge(*args: object) -> None:
        raise torch.linalg.LinAlgError("linalg.eigh: the algorithm failed to converge")

    if fails:
        monkeypatch.setattr(torch.linalg, "eigh", diverge)
    weight = torch.nn.Parameter(torch.zeros(48, 32))
    optimiser = Soap([weight], lr=0.1, refresh=2)
    for step in range(7):
        weight.grad = degenerate(kind) * (1 if step != 4 else 0)
        optimiser.step()
        for name, size in (("left_basis", 48), ("right_basis", 32)):
            basis = optimiser.state[weight][name].double()
            torch.testing.assert_close(basis.T @ basis, torch.eye(size).double(), rtol=0, atol=1e-4)
    assert weight.isfinite().all()
    # Downhill, whatever the basis.
    assert (weight.double() * degenerate(kind).double()).sum() <= 0


def test_what_replaces_the_decomposition_comes_near_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    turned = torch.linalg.qr(torch.randn(24, 24, dtype=torch.float64))[0]
    gradient = (turned * torch.logspace(0, -6, 24, dtype=torch.float64)).float()
    found = []
    for fails in (False, True):
        if fails:
            error = torch.linalg.LinAlgError("does not converge")
            monkeypatch.setattr(torch.linalg, "eigh", lambda _, e=error: (_ for _ in ()).throw(e))
        weight = torch.nn.Parameter(torch.zeros(24, 24))
        weight.grad = gradient
        optimiser = Soap([weight])
        optimiser.step()
        found.append(optimiser.state[weight]["left_basis"])
    same = (found[0].T @ found[1]).abs().diagonal()
    assert (same[:8] > 0.999).all()
