"""How a signal goes on beyond its border, and how many coefficients come of it.

Conventions
    One axis of ``size`` samples and filters of ``taps`` taps give ``coefficient_size`` coefficients per band.
    Coefficient ``i`` sees positions ``2 i - offset ... 2 i - offset + taps - 1``. :func:`source_index` says which
    sample stands at a position, -1 for "a zero". This table is all that the modes differ in: back-ends read it, and
    the adjoint sends what was read at a position back to the sample that stood there.

    Expansive rules (zero, symmetric, reflect) are those of PyWavelets: ``(size + taps - 1) // 2`` coefficients, offset
    ``taps - 2``. The others give ``ceil(size / 2)`` with offset ``taps // 2 - 1``, which is the alignment of
    PyWavelets' periodization (no circular shift between the two).

    The inverse transform is the adjoint of an analysis with the synthesis filters under :func:`dual_rule`: positions
    that the crop to ``output_size`` removes read as zeros.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

import torch

from medwave.core.errors import GeometryError, InputError

MODES = ("periodization", "zero", "symmetric", "reflect", "zero_truncated")
"""Boundary modes. The first is the default: exact for every wavelet and non-expansive."""


class Rule(NamedTuple):
    """What an extension rule does.

    Attributes:
        expansive: more coefficients than samples, as PyWavelets has it; else ``ceil(size / 2)`` per band.
        beyond: what stands outside the signal: "periodic", "zero", "symmetric" (half-sample) or "reflect"
            (whole-sample).
        repeat: an odd signal is made even by its last sample (else by a zero).
    """

    expansive: bool
    beyond: str
    repeat: bool


RULES = {
    "periodization": Rule(False, "periodic", True),
    "zero": Rule(True, "zero", False),
    "symmetric": Rule(True, "symmetric", False),
    "reflect": Rule(True, "reflect", False),
    "zero_truncated": Rule(False, "zero", True),
    "periodization_crop": Rule(False, "periodic", False),
    "zero_truncated_crop": Rule(False, "zero", False),
}


def check_mode(mode: str) -> str:
    """Return a known boundary mode.

    Raises:
        InputError: for an unknown one.
    """
    if mode in MODES:
        return mode
    near = difflib.get_close_matches(str(mode), MODES, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(f"mode is one of {', '.join(MODES)}, got {mode!r}{hint}")


def dual_rule(mode: str) -> str:
    """The rule whose adjoint, with the synthesis filters, is the inverse of a mode."""
    rule = RULES[mode]
    if rule.expansive:
        return "zero"
    return "periodization_crop" if rule.beyond == "periodic" else "zero_truncated_crop"


def coefficient_size(size: int, taps: int, rule: str) -> int:
    """Coefficients per band that ``size`` samples give."""
    return (size + taps - 1) // 2 if RULES[rule].expansive else (size + 1) // 2


def full_size(coefficients: int, taps: int, rule: str) -> int:
    """The largest (even) number of samples that gives ``coefficients`` per band."""
    return 2 * coefficients - taps + 2 if RULES[rule].expansive else 2 * coefficients


def offset(taps: int, rule: str) -> int:
    """How far left of sample ``2 i`` the window of coefficient ``i`` starts."""
    return taps - 2 if RULES[rule].expansive else taps // 2 - 1


def check_size(size: int, rule: str) -> None:
    """Refuse an axis that a rule cannot extend.

    Raises:
        GeometryError: for an empty axis, or a single sample under "reflect".
    """
    least = 2 if RULES[rule].beyond == "reflect" else 1
    if size < least:
        raise GeometryError(
            f"mode {rule!r} needs at least {least} sample(s) along each spatial axis, got {size}"
            + ("; use symmetric or periodization" if least == 2 else "")
        )


def modulo(positions: torch.Tensor, period: int) -> torch.Tensor:
    """``positions % period``, never negative; the period as a tensor, since ONNX takes no symbolic scalar there."""
    return torch.remainder(positions, torch.full((1,), period, dtype=positions.dtype, device=positions.device))


def source_index(positions: torch.Tensor, size: int, rule: str) -> torch.Tensor:
    """Which sample stands at each position.

    Args:
        positions: int64 tensor of any shape; 0 is the first sample, negative positions lie left of it.
        size: number of samples (may be symbolic while a graph is traced).
        rule: a key of :data:`RULES`.

    Returns:
        int64 tensor of the same shape: sample index, or -1 where a zero stands.
    """
    law = RULES[rule]
    if law.beyond == "symmetric":
        at = modulo(positions, 2 * size)
        return torch.minimum(at, 2 * size - 1 - at)
    if law.beyond == "reflect":
        at = modulo(positions, 2 * size - 2)
        return torch.minimum(at, 2 * size - 2 - at)
    even = size if law.expansive else size + size % 2
    at = modulo(positions, even) if law.beyond == "periodic" else positions
    inside = (at >= 0) & (at < (even if law.repeat else size))
    return torch.where(inside, at.clamp(max=size - 1), -1)
