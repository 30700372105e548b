"""The ventricles of a head, found from its T1 and T2 together, so that neither contrast is favoured."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medwave.core.geometry import Volume

DEEP_VOXELS = 18
"""How far inside the head the ventricles are looked for."""


def ventricles(t1: Volume, t2: Volume) -> npt.NDArray[np.bool_]:
    """The largest piece deep in the head that is dark in T1 and bright in T2; both lie on one grid."""
    dark, bright = np.asarray(t1.data), np.asarray(t2.data)
    head = dark > 0
    deep = ndimage.distance_transform_edt(ndimage.binary_fill_holes(head)) > DEEP_VOXELS
    fluid = deep & (dark < 0.45 * np.median(dark[head])) & (bright > 0.6 * np.percentile(bright[head], 99))
    pieces, _ = ndimage.label(fluid)
    return np.asarray(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)
