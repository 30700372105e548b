"""Outliers among a handful of values, by median and median absolute deviation, which outliers hardly move.

Source: the modified z-score of Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993, with their limit 3.5.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LIMIT = 3.5
LEAST_VALUES = 5
"""Among fewer values none is called an outlier."""


def robust_scores(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Signed distance of each value from the median in robust standard deviations; 0 for NaN and where all agree.

    The deviation is 1.4826 times the median absolute deviation; where more than half of the values are equal, which
    makes that zero, 1.2533 times the mean absolute deviation. Fewer than :data:`LEAST_VALUES` finite values score 0.
    """
    x = np.asarray(values, dtype=np.float64)
    known = np.isfinite(x)
    if known.sum() < LEAST_VALUES:
        return np.zeros(x.shape)
    away = x - np.median(x[known])
    size = np.abs(away[known])
    spread = 1.4826 * np.median(size) or 1.2533 * size.mean()
    return np.where(known, away / spread, 0.0) if spread > 0 else np.zeros(x.shape)
