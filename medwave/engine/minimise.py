"""The minimum of a smooth function of a few unknowns, by BFGS.

The inverse Hessian is kept whole (Nocedal and Wright, Numerical Optimization, 2006, chapter 6, doi
10.1007/978-0-387-40065-5), a step is shortened until the function falls enough, and an update that would make the
Hessian indefinite is left out. For a dozen unknowns this spares what SciPy's optimisers cost to import, a quarter of
a second, and to call.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medwave.core.geometry import Float64Array

_ENOUGH = 1e-4  # share of the fall that the slope promises (Armijo)
_SHORTENINGS = 12


def minimise(
    function: Callable[[Float64Array], tuple[float, Float64Array]],
    start: Float64Array,
    *,
    iterations: int,
    tolerance: float,
    first_step: float = 1.0,
) -> tuple[Float64Array, float]:
    """Go downhill from ``start``.

    Args:
        function: unknowns ``(N,)`` -> value and gradient ``(N,)``.
        start: where to begin.
        iterations: steps at most.
        tolerance: stop when a step lowers the value by less than this share of it (of 1, where it is smaller).
        first_step: length of the first step, in units of the unknowns.

    Returns:
        The unknowns and the value there, never above that of the start.
    """
    x = np.array(start, dtype=np.float64)
    value, gradient = function(x)
    inverse = np.eye(len(x)) * (first_step / max(float(np.linalg.norm(gradient)), 1e-12))
    for iteration in range(iterations):
        direction = -inverse @ gradient
        slope = float(direction @ gradient)
        if not slope < 0:
            break
        share = 1.0
        for _ in range(_SHORTENINGS):
            tried, gradient_tried = function(x + share * direction)
            if tried <= value + _ENOUGH * share * slope:
                break
            bend = tried - value - share * slope  # of the parabola through value, slope and the value tried
            share *= float(np.clip(-slope * share / (2 * bend), 0.1, 0.5)) if np.isfinite(bend) and bend > 0 else 0.5
        else:
            break
        step, change, fall = share * direction, gradient_tried - gradient, value - tried
        x, value, gradient = x + step, tried, gradient_tried
        if fall <= tolerance * max(abs(value), 1.0):
            break
        curvature = float(step @ change)
        if curvature > 1e-10 * float(np.linalg.norm(step) * np.linalg.norm(change)):
            if iteration == 0:
                inverse = np.eye(len(x)) * (curvature / float(change @ change))
            mixed = inverse @ change
            inverse += (1 + float(change @ mixed) / curvature) * np.outer(step, step) / curvature
            inverse -= (np.outer(mixed, step) + np.outer(step, mixed)) / curvature
    return x, float(value)
