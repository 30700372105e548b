"""Force of global mutual information on a warped image, as compiled loops.

The joint histogram of the fixed and the warped image (cubic B-spline in the warped intensity) gives a table of
d(MI)/d(w) by the fixed bin and the warped intensity; the force is that derivative times the gradient of the warped
image (Mattes et al., IEEE TMI 22:120-128, 2003, doi 10.1109/TMI.2003.809072). Intensities are expected to span about
0 to 1; what lies outside is clipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medwave.core.compiler import compiler
from medwave.core.threads import run_slabs
from medwave.engine.mutual_information import quantise

FloatVolume = npt.NDArray[np.float32]
BINS = 36
_CHUNKS = 16
_compile = compiler(fastmath={"contract", "arcp", "nsz", "reassoc"}, error_model="numpy")


@_compile
def _joint_histogram(start, stop, bins, warped, weight, scale, histograms):
    """Weighted joint histogram; plane ``i`` counts in ``histograms[i % chunks]``, whatever the thread."""
    limit = np.float32(histograms.shape[2] - 4 - 1e-3)
    for chunk in range(start, stop):
        for i in range(chunk, warped.shape[0], histograms.shape[0]):
            for j in range(warped.shape[1]):
                for k in range(warped.shape[2]):
                    if weight[i, j, k] == 0:
                        continue
                    v = min(max(np.float32(0.0), warped[i, j, k] * scale), limit)  # a NaN counts as 0
                    m = int(v)
                    t = v - m
                    row = histograms[chunk, bins[i, j, k]]
                    amount = weight[i, j, k]
                    row[m] += amount * (1 - t) ** 3 / 6
                    row[m + 1] += amount * (3 * t**3 - 6 * t**2 + 4) / 6
                    row[m + 2] += amount * (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6
                    row[m + 3] += amount * t**3 / 6


@_compile
def _force_slab(start, stop, bins, warped, weight, scale, table, out):
    depth, height, width = warped.shape
    limit = np.float32(table.shape[1] - 4 - 1e-3)
    half = np.float32(0.5)
    for i in range(start, stop):
        below, above = max(i - 1, 0), min(i + 1, depth - 1)
        for j in range(height):
            down, up = max(j - 1, 0), min(j + 1, height - 1)
            for k in range(width):
                v = min(max(np.float32(0.0), warped[i, j, k] * scale), limit)  # a NaN counts as 0
                m = int(v)
                t = v - np.float32(m)
                row = table[bins[i, j, k]]
                slope = (
                    -row[m] * (1 - t) * (1 - t)
                    + row[m + 1] * (3 * t - 4) * t
                    + row[m + 2] * ((2 - 3 * t) * t + 1)
                    + row[m + 3] * t * t
                )
                g = half * half * slope * weight[i, j, k]
                left, right = max(k - 1, 0), min(k + 1, width - 1)
                out[0, i, j, k] = g * (warped[above, j, k] - warped[below, j, k])
                out[1, i, j, k] = g * (warped[i, up, k] - warped[i, down, k])
                out[2, i, j, k] = g * (warped[i, j, right] - warped[i, j, left])


@dataclass
class GlobalMutualInformation:
    """Mutual information (nats) of a fixed image with warped images of the same shape, over voxels of weight > 0."""

    fixed: FloatVolume
    weight: FloatVolume

    def __post_init__(self) -> None:
        self._bins = np.rint(quantise(self.fixed, 0.0, 1.0, BINS)).astype(np.uint8)

    def force(self, warped: FloatVolume, out: FloatVolume) -> float:
        """Write the gradient by displacement into ``out`` ``(3, D, H, W)``; return the mutual information."""
        histograms = np.zeros((_CHUNKS, BINS, BINS))
        scale = np.float32(BINS - 4)
        run_slabs(_joint_histogram, _CHUNKS, self._bins, warped, self.weight, scale, histograms)
        value, table = mutual_information_table(histograms.sum(axis=0))
        run_slabs(_force_slab, len(warped), self._bins, warped, self.weight, scale, table, out)
        return value


def mutual_information_table(histogram: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float32]]:
    """Mutual information of a joint histogram and its derivative by the (normalised) entries, up to a constant."""
    joint = histogram / max(histogram.sum(), 1e-12)
    log_moving = np.log(joint.sum(axis=0) + 1e-12)[None, :]
    log_fixed = np.log(joint.sum(axis=1) + 1e-12)[:, None]
    log_joint = np.log(joint + 1e-12)
    return float((joint * (log_joint - log_moving - log_fixed)).sum()), (log_joint - log_moving).astype(np.float32)
