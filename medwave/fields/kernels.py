"""Compiled loops for CPU: linear sampling of an image, and composition of displacement fields.

Conventions as in :mod:`medwave.fields`: fields ``(3, D, H, W)`` float32 in voxels, pull-back. Every kernel works on
the slab ``[start, stop)`` of the first spatial axis (see :mod:`medwave.core.threads`) and allocates nothing.
Coordinates outside the grid are clamped to the border, or give zero where a kernel says so.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from medwave.core.threads import run_slabs

FloatVolume = npt.NDArray[np.float32]

_compile = numba.njit(cache=True, nogil=True, fastmath={"contract", "arcp", "nsz", "reassoc"}, error_model="numpy")


@_compile
def warp_border(start: int, stop: int, image: FloatVolume, field: FloatVolume, out: FloatVolume) -> None:
    """``out(p) = image(p + field(p))``, linear, positions clamped to the grid of the image."""
    depth, height, width = image.shape
    for i in range(start, stop):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                z = min(max(i + field[0, i, j, k], np.float32(0.0)), np.float32(depth - 1))
                y = min(max(j + field[1, i, j, k], np.float32(0.0)), np.float32(height - 1))
                x = min(max(k + field[2, i, j, k], np.float32(0.0)), np.float32(width - 1))
                a, b, c = int(z), int(y), int(x)
                a1, b1, c1 = min(a + 1, depth - 1), min(b + 1, height - 1), min(c + 1, width - 1)
                z -= np.float32(a)
                y -= np.float32(b)
                x -= np.float32(c)
                v00 = image[a, b, c] + x * (image[a, b, c1] - image[a, b, c])
                v01 = image[a, b1, c] + x * (image[a, b1, c1] - image[a, b1, c])
                v10 = image[a1, b, c] + x * (image[a1, b, c1] - image[a1, b, c])
                v11 = image[a1, b1, c] + x * (image[a1, b1, c1] - image[a1, b1, c])
                v0 = v00 + y * (v01 - v00)
                v1 = v10 + y * (v11 - v10)
                out[i, j, k] = v0 + z * (v1 - v0)


@_compile
def compose_scaled(
    start: int, stop: int, outer: FloatVolume, inner: FloatVolume, scale: float, out: FloatVolume
) -> None:
    """``out(p) = s inner(p) + outer(p + s inner(p))`` with ``s = scale``, outer clamped to its border.

    All fields ``(3, D, H, W)`` of one shape; ``out`` must not share memory with ``outer``.
    """
    _, depth, height, width = outer.shape
    scale = np.float32(scale)
    for i in range(start, stop):
        for j in range(height):
            for k in range(width):
                dz, dy, dx = scale * inner[0, i, j, k], scale * inner[1, i, j, k], scale * inner[2, i, j, k]
                z = min(max(i + dz, np.float32(0.0)), np.float32(depth - 1))
                y = min(max(j + dy, np.float32(0.0)), np.float32(height - 1))
                x = min(max(k + dx, np.float32(0.0)), np.float32(width - 1))
                a, b, c = int(z), int(y), int(x)
                a1, b1, c1 = min(a + 1, depth - 1), min(b + 1, height - 1), min(c + 1, width - 1)
                z -= np.float32(a)
                y -= np.float32(b)
                x -= np.float32(c)
                for n in range(3):
                    v00 = outer[n, a, b, c] + x * (outer[n, a, b, c1] - outer[n, a, b, c])
                    v01 = outer[n, a, b1, c] + x * (outer[n, a, b1, c1] - outer[n, a, b1, c])
                    v10 = outer[n, a1, b, c] + x * (outer[n, a1, b, c1] - outer[n, a1, b, c])
                    v11 = outer[n, a1, b1, c] + x * (outer[n, a1, b1, c1] - outer[n, a1, b1, c])
                    v0 = v00 + y * (v01 - v00)
                    v1 = v10 + y * (v11 - v10)
                    value = v0 + z * (v1 - v0)
                    if n == 0:
                        out[0, i, j, k] = dz + value
                    elif n == 1:
                        out[1, i, j, k] = dy + value
                    else:
                        out[2, i, j, k] = dx + value


@_compile
def _largest_square(start: int, stop: int, field: FloatVolume, out: FloatVolume) -> None:
    """Per plane the largest squared length of a vector of ``field`` ``(3, D, H, W)`` into ``out`` ``(D,)``."""
    for i in range(start, stop):
        largest = np.float32(0.0)
        for j in range(field.shape[2]):
            z, y, x = field[0, i, j], field[1, i, j], field[2, i, j]
            for k in range(z.shape[0]):
                largest = max(largest, z[k] * z[k] + y[k] * y[k] + x[k] * x[k])
        out[i] = largest


def largest_length(field: FloatVolume) -> float:
    """Length of the longest vector of a field ``(3, D, H, W)`` float32."""
    per_plane = np.empty(field.shape[1], dtype=np.float32)
    run_slabs(_largest_square, field.shape[1], field, per_plane)
    return float(np.sqrt(per_plane.max()))


@_compile
def warp_through(start, stop, image, field, matrix, out):  # type: ignore[no-untyped-def]
    """``out(p) = image(M (p + field(p)))``, linear, zero outside the image as ITK has it.

    ``matrix`` is 3x4 float64, voxels of the field's grid -> voxels of the image. ITK's image reaches half a voxel
    beyond the outer voxel centres, where the border value is taken.
    """
    depth, height, width = image.shape
    for i in range(start, stop):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                a = i + field[0, i, j, k]
                b = j + field[1, i, j, k]
                c = k + field[2, i, j, k]
                z = matrix[0, 0] * a + matrix[0, 1] * b + matrix[0, 2] * c + matrix[0, 3]
                y = matrix[1, 0] * a + matrix[1, 1] * b + matrix[1, 2] * c + matrix[1, 3]
                x = matrix[2, 0] * a + matrix[2, 1] * b + matrix[2, 2] * c + matrix[2, 3]
                if z < -0.5 or y < -0.5 or x < -0.5 or z > depth - 0.5 or y > height - 0.5 or x > width - 0.5:
                    out[i, j, k] = 0
                    continue
                z = min(max(z, 0.0), depth - 1.0)
                y = min(max(y, 0.0), height - 1.0)
                x = min(max(x, 0.0), width - 1.0)
                d, h, w = int(z), int(y), int(x)
                d1, h1, w1 = min(d + 1, depth - 1), min(h + 1, height - 1), min(w + 1, width - 1)
                z -= d
                y -= h
                x -= w
                v00 = image[d, h, w] + x * (image[d, h, w1] - image[d, h, w])
                v01 = image[d, h1, w] + x * (image[d, h1, w1] - image[d, h1, w])
                v10 = image[d1, h, w] + x * (image[d1, h, w1] - image[d1, h, w])
                v11 = image[d1, h1, w] + x * (image[d1, h1, w1] - image[d1, h1, w])
                v0 = v00 + y * (v01 - v00)
                v1 = v10 + y * (v11 - v10)
                out[i, j, k] = v0 + z * (v1 - v0)


@_compile
def _value_and_slopes(field, n, z, y, x):  # type: ignore[no-untyped-def]
    """Linear value of component n at a position inside the grid, and its derivatives along the three axes."""
    _, depth, height, width = field.shape
    a, b, c = min(int(z), depth - 2), min(int(y), height - 2), min(int(x), width - 2)
    z -= a
    y -= b
    x -= c
    d00 = field[n, a, b, c + 1] - field[n, a, b, c]
    d01 = field[n, a, b + 1, c + 1] - field[n, a, b + 1, c]
    d10 = field[n, a + 1, b, c + 1] - field[n, a + 1, b, c]
    d11 = field[n, a + 1, b + 1, c + 1] - field[n, a + 1, b + 1, c]
    v00 = field[n, a, b, c] + x * d00
    v01 = field[n, a, b + 1, c] + x * d01
    v10 = field[n, a + 1, b, c] + x * d10
    v11 = field[n, a + 1, b + 1, c] + x * d11
    v0 = v00 + y * (v01 - v00)
    v1 = v10 + y * (v11 - v10)
    e0 = d00 + y * (d01 - d00)
    along_x = e0 + z * (d10 + y * (d11 - d10) - e0)
    along_y = (v01 - v00) + z * ((v11 - v10) - (v01 - v00))
    return v0 + z * (v1 - v0), v1 - v0, along_y, along_x


@_compile
def _mismatch(field, i, j, k, z, y, x):  # type: ignore[no-untyped-def]
    """``(z, y, x) + u(z, y, x) - (i, j, k)`` with u clamped to the border, and the slopes of u there (0 beyond it)."""
    _, depth, height, width = field.shape
    cz = min(max(z, 0.0), depth - 1.0)
    cy = min(max(y, 0.0), height - 1.0)
    cx = min(max(x, 0.0), width - 1.0)
    u0, u00, u01, u02 = _value_and_slopes(field, 0, cz, cy, cx)
    u1, u10, u11, u12 = _value_and_slopes(field, 1, cz, cy, cx)
    u2, u20, u21, u22 = _value_and_slopes(field, 2, cz, cy, cx)
    iz, iy, ix = 1.0 if cz == z else 0.0, 1.0 if cy == y else 0.0, 1.0 if cx == x else 0.0
    return (
        z + u0 - i, y + u1 - j, x + u2 - k,
        1 + u00 * iz, u01 * iy, u02 * ix, u10 * iz, 1 + u11 * iy, u12 * ix, u20 * iz, u21 * iy, 1 + u22 * ix,
    )  # fmt: skip


@_compile
def invert_newton(start, stop, field, iterations, tolerance, inverse, residual):  # type: ignore[no-untyped-def]
    """Per voxel, Newton steps with backtracking on ``q + u(q) = p``; the start is the neighbour's answer.

    Writes ``q - p`` to ``inverse`` ``(3, D, H, W)`` and the length of what is left to ``residual`` ``(D, H, W)``.
    """
    for i in range(start, stop):
        for j in range(field.shape[2]):
            d0, d1, d2 = -field[0, i, j, 0], -field[1, i, j, 0], -field[2, i, j, 0]
            for k in range(field.shape[3]):
                z, y, x = i + np.float64(d0), j + np.float64(d1), k + np.float64(d2)
                r0, r1, r2, a, b, c, d, e, f, g, h, m = _mismatch(field, i, j, k, z, y, x)
                size = r0 * r0 + r1 * r1 + r2 * r2
                damping = 1.0
                for _ in range(iterations):
                    if size <= tolerance * tolerance:
                        break
                    det = a * (e * m - f * h) - b * (d * m - f * g) + c * (d * h - e * g)
                    if abs(det) < 1e-2:
                        det = 1e-2 if det >= 0 else -1e-2
                    step = damping / det
                    tz = z - step * (r0 * (e * m - f * h) + r1 * (c * h - b * m) + r2 * (b * f - c * e))
                    ty = y - step * (r0 * (f * g - d * m) + r1 * (a * m - c * g) + r2 * (c * d - a * f))
                    tx = x - step * (r0 * (d * h - e * g) + r1 * (b * g - a * h) + r2 * (a * e - b * d))
                    tried = _mismatch(field, i, j, k, tz, ty, tx)
                    new_size = tried[0] * tried[0] + tried[1] * tried[1] + tried[2] * tried[2]
                    if new_size < size:
                        z, y, x, size = tz, ty, tx, new_size
                        r0, r1, r2, a, b, c, d, e, f, g, h, m = tried
                        damping = min(1.0, 2 * damping)
                    else:
                        damping *= 0.5
                d0, d1, d2 = np.float32(z - i), np.float32(y - j), np.float32(x - k)
                inverse[0, i, j, k], inverse[1, i, j, k], inverse[2, i, j, k] = d0, d1, d2
                residual[i, j, k] = np.float32(np.sqrt(size))


@_compile
def nearest_through(start, stop, labels, field, matrix, out):  # type: ignore[no-untyped-def]
    """``out(p) = labels(M (p + field(p)))``, nearest voxel (halves up), zero outside; any dtype."""
    depth, height, width = labels.shape
    for i in range(start, stop):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                a = i + field[0, i, j, k]
                b = j + field[1, i, j, k]
                c = k + field[2, i, j, k]
                z = int(np.floor(matrix[0, 0] * a + matrix[0, 1] * b + matrix[0, 2] * c + matrix[0, 3] + 0.5))
                y = int(np.floor(matrix[1, 0] * a + matrix[1, 1] * b + matrix[1, 2] * c + matrix[1, 3] + 0.5))
                x = int(np.floor(matrix[2, 0] * a + matrix[2, 1] * b + matrix[2, 2] * c + matrix[2, 3] + 0.5))
                if 0 <= z < depth and 0 <= y < height and 0 <= x < width:
                    out[i, j, k] = labels[z, y, x]
                else:
                    out[i, j, k] = 0
