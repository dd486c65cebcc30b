"""SOAP: Adam in the eigenbasis of Shampoo's factors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Soap"]

_LEAST = 16
"""A side shorter than this is not worth a basis of its own."""

_ITERATIONS = 8
"""Power iterations towards a first basis, where its decomposition fails."""


class Soap(Optimizer):
    """Adam whose moments live in a slowly turning basis of each weight matrix.

    A gradient G ``(m, n)`` (a convolution's weight with everything but the output channels flattened) is seen in
    the eigenbases of the running means of ``G G^T`` and ``G^T G``; Adam runs there, and its step is turned back.
    The bases are refreshed by one power iteration and a QR decomposition every ``refresh`` steps, not those of
    all matrices at once, so that no step takes long. The first moment is kept in the basis, too, which saves
    turning it each time and is the same up to rounding. A side longer than ``largest`` keeps the basis it has;
    what is no matrix, or has a side shorter than 16, takes plain Adam.

    Vyas et al., "SOAP: Improving and stabilizing Shampoo using Adam", ICLR 2025, arXiv:2409.11321.

    Args:
        params: what to train, or groups of it.
        lr: learning rate, that of Adam.
        betas: of the two moments.
        eps: added to the root of the second moment.
        factor_beta: of the running means that the bases come from.
        refresh: steps between two refreshes of a basis.
        largest: sides longer than this are not turned; the cost of a side grows with its square, that of its
            refresh with its cube.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        factor_beta: float = 0.95,
        refresh: int = 20,
        largest: int = 768,
    ) -> None:
        if not (
            lr >= 0 and eps > 0 and all(0 <= beta < 1 for beta in (*betas, factor_beta)) and refresh >= 1
        ):
            raise ValueError(
                f"an option is out of range: {lr=}, {eps=}, {betas=}, {factor_beta=}, {refresh=}"
            )
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "factor_beta": factor_beta, "refresh": refresh, "largest": largest,
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step; parameters without a gradient stay as they are.

        Args:
            closure: not supported; only there because every optimiser has it.

        Raises:
            NotImplementedError: a closure is given.
        """
        if closure is not None:
            raise NotImplementedError("Soap takes no closure")
        for group in self.param_groups:
            for turn, parameter in enumerate(group["params"]):
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group, turn)

    def work(self, parameter: Tensor) -> float:
        """How much there is to do for a parameter, in products."""
        rows = len(parameter) if parameter.ndim > 1 else 1
        columns = parameter.numel() // max(rows, 1)
        left, right = _sides(parameter, self.defaults["largest"])
        return float(parameter.numel() * (1 + rows * left + columns * right))

    def _step(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], turn: int) -> None:
        """Train one parameter; its bases are refreshed when ``turn`` and the number of its step say so."""
        state, beta = self.state[parameter], group["factor_beta"]
        sides = _sides(parameter, group["largest"])
        gradient = gradient.reshape(len(parameter), -1) if any(sides) else gradient
        if not state:
            state |= {
                "step": 0,
                "momentum": torch.zeros_like(gradient),
                "second": torch.zeros_like(gradient),
            }
            for name, wanted in zip(("left", "right"), sides, strict=True):
                if wanted:
                    state[name] = gradient @ gradient.T if name == "left" else gradient.T @ gradient
                    state[f"{name}_basis"] = _first_basis(state[name])
        state["step"] += 1
        left, right = state.get("left_basis"), state.get("right_basis")
        change = _turn(_adam(state, _turn(gradient, left, right, back=False), group), left, right, back=True)
        parameter.sub_(change.reshape(parameter.shape))
        if left is not None:
            state["left"].addmm_(gradient, gradient.T, beta=beta, alpha=1 - beta)
        if right is not None:
            state["right"].addmm_(gradient.T, gradient, beta=beta, alpha=1 - beta)
        if (state["step"] + turn) % group["refresh"] == 0:
            for name, axis in (("left", 0), ("right", 1)):
                if f"{name}_basis" in state:
                    _refresh(state, name, axis)


def _sides(parameter: Tensor, largest: int) -> tuple[bool, bool]:
    """Whether the left and the right side of a parameter, as a matrix, get a basis."""
    if parameter.ndim < 2:
        return False, False
    rows, columns = len(parameter), parameter.numel() // len(parameter)
    if min(rows, columns) < _LEAST:
        return False, False
    return rows <= largest, columns <= largest


def _adam(state: dict[str, Any], gradient: Tensor, group: dict[str, Any]) -> Tensor:
    """Adam's step for a gradient, in whatever basis it and the state are."""
    (beta1, beta2), step = group["betas"], state["step"]
    state["momentum"].lerp_(gradient, 1 - beta1)
    state["second"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    deviation: Tensor = (state["second"] / (1 - beta2**step)).sqrt_().add_(group["eps"])
    momentum: Tensor = state["momentum"]
    return (momentum / deviation).mul_(group["lr"] / (1 - beta1**step))


def _turn(matrix: Tensor, left: Tensor | None, right: Tensor | None, *, back: bool) -> Tensor:
    """A matrix seen in the bases, or what is given in them seen from outside."""
    if left is not None:
        matrix = (left if back else left.T) @ matrix
    if right is not None:
        matrix = matrix @ (right.T if back else right)
    return matrix


def _unit(factor: Tensor) -> Tensor:
    """A factor with its largest element scaled to 1: squares of small gradients are too small to decompose."""
    largest = factor.abs().max()
    return factor / largest if largest > torch.finfo(factor.dtype).tiny else torch.eye(len(factor)).to(factor)


def _first_basis(factor: Tensor) -> Tensor:
    """The eigenvectors of a factor, those of the largest eigenvalues first.

    Adam may run in any orthonormal basis. Where there are no eigenvectors to be had, it gets one that comes near
    them, and :func:`_refresh` goes on from there.
    """
    if not factor.isfinite().all():
        return torch.eye(len(factor)).to(factor)
    # In float64: of a matrix that is mostly zero, LAPACK may not find the basis in float32.
    exact = _unit(factor).double()
    try:
        basis = torch.linalg.eigh(exact)[1].flip(1)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        # Of a matrix of low rank it may not find it in float64 either. QR decompositions always end.
        basis = torch.eye(len(exact)).to(exact)
        for _ in range(_ITERATIONS):
            basis, _ = _iterated(exact, basis)
    first: Tensor = basis.to(factor.dtype).contiguous()
    return first


def _iterated(factor: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """A basis one power iteration nearer to the eigenvectors, and which vectors of the old one its own come from."""
    image = factor @ basis
    # In the order of their eigenvalues, which is what the iteration preserves.
    order = (image * basis).sum(0).argsort(descending=True)
    return torch.linalg.qr(image[:, order])[0], order


def _refresh(state: dict[str, Any], name: str, axis: int) -> None:
    """One power iteration towards the eigenvectors of a factor; the moments follow."""
    old, factor = state[f"{name}_basis"], state[name]
    if not factor.isfinite().all():
        return
    new, order = _iterated(_unit(factor), old)
    change = old.T @ new
    momentum = state["momentum"]
    state["momentum"] = change.T @ momentum if axis == 0 else momentum @ change
    # Squares cannot be turned; each keeps to the direction that its own becomes.
    state["second"] = state["second"].index_select(axis, order)
    state[f"{name}_basis"] = new
