"""The scales of the refinement: what ``fast``, ``balanced`` and ``accurate`` mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medwave.engine.loops import Level, level_for, metric_at

LEVELS: dict[str, tuple[Level, ...]] = {
    "fast": (Level(8, 30, 1.5, 0.7), Level(4, 30, 1.5, 0.6), Level(2, 8, 1.0, 0.35)),
    "balanced": (Level(8, 60, 1.5, 0.7), Level(4, 40, 1.5, 0.6), Level(2, 20, 1.2, 0.5), Level(1, 12, 1.0, 0.37)),
    "accurate": (Level(8, 80, 1.5, 0.7), Level(4, 60, 1.5, 0.6), Level(2, 30, 1.2, 0.5), Level(1, 24, 1.0, 0.37)),
}
_FORCE_LIMIT = 3.0  # about six times the mean length


def levels_for(preset: str, metric: str, shape: tuple[int, ...], *, masked: bool = False) -> tuple[Level, ...]:
    """The scales of a preset as an image of a shape takes them.

    Presets count iterations of a limited force. Where a local curve leads strong edges are what can be relied on, and
    an image too small for the coarsest scales has far to go at the others: there the force has no limit, and twice the
    iterations. Masked images take as many: what surrounds a place left out spreads into it by their smoothing.
    """
    scales = LEVELS[preset]
    fitting = tuple(level for level in scales if min(shape) >= 8 * level.factor) or scales[-1:]

    def taken(level: Level) -> Level:
        limited = metric_at(metric, level.factor) == "lncc" and len(fitting) == len(scales)
        times, limit = 1 if limited and not masked else 2, _FORCE_LIMIT if limited else np.inf
        return replace(level_for(metric, level), iterations=times * level.iterations, force_limit=limit)

    return tuple(taken(level) for level in fitting)
