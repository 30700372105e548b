"""The two operators ``medwave::wavelet_analysis`` and ``medwave::wavelet_synthesis``.

Conventions
    Both are linear and each is the exact adjoint of the other under the same arguments, so each is the other's
    backward, to any order. Taps travel as a key (:func:`medwave.wavelets.filters.kernels_key`), the boundary as the
    name of a rule (:mod:`medwave.wavelets.extension`), the back-end as a name.
    Inside a graph that is exported, or compiled for a device without a back-end of its own, under torch.func and under
    forward-mode derivatives, the plain torch form is called in place of the operator: ordinary torch operations only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch

from medwave.wavelets import backends
from medwave.wavelets.backends import plain
from medwave.wavelets.extension import coefficient_size
from medwave.wavelets.filters import Kernels, kernels

P = ParamSpec("P")
R = TypeVar("R")

KERNEL_DEVICES = tuple(backends.DEVICES.values())
"""Device types that have a back-end of their own, as a constant that compilers can read."""


def constant_in_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """What ``torch.compiler.assume_constant_result`` does, without the second that importing its compiler takes."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant_in_graphs
def _taps(key: str) -> Kernels:
    return kernels(key)


@constant_in_graphs
def _legacy_export() -> bool:
    return torch.onnx.is_in_onnx_export()


def analysis(
    x: torch.Tensor, *, key: str, rule: str, ndim: int, low_only: bool = False, backend: str = "auto"
) -> torch.Tensor:
    """Bands ``(N, C, 2 ** ndim, ...)`` (one band if ``low_only``) of ``(N, C, ...)``; arguments are not checked."""
    if needs_plain_form(x, backend):
        return plain.analysis(x, _taps(key), rule, ndim, low_only)
    return _analysis(x, key, rule, ndim, low_only, backend)


def synthesis(
    bands: torch.Tensor, *, key: str, rule: str, size: Sequence[int], low_only: bool = False, backend: str = "auto"
) -> torch.Tensor:
    """Adjoint of :func:`analysis`: ``(N, C, *size)``; arguments are not checked."""
    if needs_plain_form(bands, backend):
        return plain.synthesis(bands, _taps(key), rule, size, low_only)
    return _synthesis(bands, key, rule, size, low_only, backend)


def needs_plain_form(x: torch.Tensor, backend: str) -> bool:
    """Whether something looks on, a recorded graph or a derivative, that sees ordinary torch operations only."""
    if torch.compiler.is_exporting() or _legacy_export():
        return True
    if torch._C._are_functorch_transforms_active():
        return True  # torch.func differentiates no custom operator
    if torch.compiler.is_compiling():
        level: int = torch.autograd.forward_ad._current_level  # a graph cannot ask x for its tangent
        return level >= 0 or backend == "torch" or x.device.type not in KERNEL_DEVICES
    dual = torch.autograd.forward_ad.unpack_dual(x)  # type: ignore[no-untyped-call]
    return dual.tangent is not None


@torch.library.custom_op("medwave::wavelet_analysis", mutates_args=())
def _analysis(x: torch.Tensor, key: str, rule: str, ndim: int, low_only: bool, backend: str) -> torch.Tensor:
    return backends.call("analysis", backend, x, kernels(key), rule, ndim, low_only)


@torch.library.custom_op("medwave::wavelet_synthesis", mutates_args=())
def _synthesis(
    bands: torch.Tensor, key: str, rule: str, size: Sequence[int], low_only: bool, backend: str
) -> torch.Tensor:
    return backends.call("synthesis", backend, bands, kernels(key), rule, size, low_only)


@_analysis.register_fake
def _(x: torch.Tensor, key: str, rule: str, ndim: int, low_only: bool, backend: str) -> torch.Tensor:
    counts = [coefficient_size(n, kernels(key).length, rule) for n in x.shape[2:]]
    return x.new_empty((*x.shape[:2], 1 if low_only else 2**ndim, *counts))


@_synthesis.register_fake
def _(bands: torch.Tensor, key: str, rule: str, size: Sequence[int], low_only: bool, backend: str) -> torch.Tensor:
    return bands.new_empty((*bands.shape[:2], *size))


def _remember_analysis(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, ctx.key, ctx.rule, _, ctx.low_only, ctx.backend = inputs
    ctx.size = x.shape[2:]


def _analysis_backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x_grad = synthesis(
        grad, key=ctx.key, rule=ctx.rule, size=ctx.size, low_only=ctx.low_only, backend=ctx.backend
    )  # not the operator: the gradient may have a tangent
    return x_grad, None, None, None, None, None


def _remember_synthesis(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, ctx.key, ctx.rule, size, ctx.low_only, ctx.backend = inputs
    ctx.ndim = len(size)


def _synthesis_backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    bands_grad = analysis(grad, key=ctx.key, rule=ctx.rule, ndim=ctx.ndim, low_only=ctx.low_only, backend=ctx.backend)
    return bands_grad, None, None, None, None, None


_analysis.register_autograd(_analysis_backward, setup_context=_remember_analysis)
_synthesis.register_autograd(_synthesis_backward, setup_context=_remember_synthesis)


def _many(operator: Any, in_dims: tuple[int | None, ...], x: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, int]:
    """A mapped axis joins the batch: the transform treats every item alike."""
    mapped = x.movedim(in_dims[0] or 0, 0)
    out = operator(mapped.flatten(0, 1), *rest)
    return out.unflatten(0, mapped.shape[:2]), 0


@_analysis.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[torch.Tensor, int]:
    return _many(_analysis, in_dims, *inputs)


@_synthesis.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[torch.Tensor, int]:
    return _many(_synthesis, in_dims, *inputs)
