"""The compiled loop that turns displacements into vectors as ITK's files hold them, in one pass.

Slabs run over the last axis, which is the slowest one of a file.
"""

from __future__ import annotations

import numpy as np

from medwave.core.compiler import compiler

_TOGETHER = 16  # voxels along both axes of a tile: field and file have other axes side by side in memory

_compile = compiler(error_model="numpy")


@_compile
def lps_vectors(start, stop, field, rows, steps, vectors, moves):  # type: ignore[no-untyped-def]
    """``vectors(k, j, i) = round(rows u(i, j, k)) / steps``, steps a power of two, for k in ``[start, stop)``.

    Args:
        start, stop: the slab.
        field: u, ``(3, D, H, W)`` float32.
        rows: 3x3 float32, displacements in voxels -> LPS mm times ``steps``.
        steps: multiples of ``1 / steps`` mm are kept, float32.
        vectors: ``(W, H, D, 3)`` float32, written; zeros are positive.
        moves: ``(W, D + H)`` bool, set where the plane k holds a vector other than zero, by its i and its j.
    """
    _, depth, height, _ = field.shape
    scale = np.float32(1) / steps
    for first in range(start, stop, _TOGETHER):
        last = min(first + _TOGETHER, stop)
        for near in range(0, depth, _TOGETHER):
            for j in range(height):
                for i in range(near, min(near + _TOGETHER, depth)):
                    for k in range(first, last):
                        a, b, c = field[0, i, j, k], field[1, i, j, k], field[2, i, j, k]
                        x = np.rint(rows[0, 0] * a + rows[0, 1] * b + rows[0, 2] * c) * scale + np.float32(0)
                        y = np.rint(rows[1, 0] * a + rows[1, 1] * b + rows[1, 2] * c) * scale + np.float32(0)
                        z = np.rint(rows[2, 0] * a + rows[2, 1] * b + rows[2, 2] * c) * scale + np.float32(0)
                        vectors[k, j, i, 0] = x
                        vectors[k, j, i, 1] = y
                        vectors[k, j, i, 2] = z
                        if x != 0 or y != 0 or z != 0:
                            moves[k, i] = True
                            moves[k, depth + j] = True
