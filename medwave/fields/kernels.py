"""Compiled loops for CPU: linear sampling of an image, and composition of displacement fields.

Conventions as in :mod:`medwave.fields`: fields ``(3, D, H, W)`` float32 in voxels, pull-back. Every kernel works on
the slab ``[start, stop)`` of the first spatial axis (see :mod:`medwave.core.threads`) and allocates nothing.
Coordinates outside the grid are clamped to the border, or give zero where a kernel says so; a coordinate that is not
a number counts as 0, or as outside.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medwave.core.compiler import compiler
from medwave.core.errors import GeometryError
from medwave.core.threads import run_slabs

FloatVolume = npt.NDArray[np.float32]

_compile = compiler(fastmath={"contract", "arcp", "nsz", "reassoc"}, error_model="numpy")


@_compile
def _clamped(position, size):  # type: ignore[no-untyped-def]
    """The position within ``[0, size - 1]``."""
    return min(max(np.float32(0.0), position), np.float32(size - 1))  # max returns its first argument for a NaN


@_compile
def _cell(position, size):  # type: ignore[no-untyped-def]
    """The two voxels that a position within the grid lies between, and how far it is from the first."""
    low = int(position)
    return low, min(low + 1, size - 1), position - np.float32(low)  # an int64 would widen a float32


@_compile
def _mixed(image, a, a1, z, b, b1, y, c, c1, x):  # type: ignore[no-untyped-def]
    """Linear interpolation between the eight voxels that three cells name."""
    v00 = image[a, b, c] + x * (image[a, b, c1] - image[a, b, c])
    v01 = image[a, b1, c] + x * (image[a, b1, c1] - image[a, b1, c])
    v10 = image[a1, b, c] + x * (image[a1, b, c1] - image[a1, b, c])
    v11 = image[a1, b1, c] + x * (image[a1, b1, c1] - image[a1, b1, c])
    v0 = v00 + y * (v01 - v00)
    v1 = v10 + y * (v11 - v10)
    return v0 + z * (v1 - v0)


@_compile
def warp_border(start: int, stop: int, image: FloatVolume, field: FloatVolume, out: FloatVolume) -> None:
    """``out(p) = image(p + field(p))``, linear, positions clamped to the grid of the image."""
    depth, height, width = image.shape
    for i in range(start, stop):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                a, a1, z = _cell(_clamped(np.float32(i) + field[0, i, j, k], depth), depth)
                b, b1, y = _cell(_clamped(np.float32(j) + field[1, i, j, k], height), height)
                c, c1, x = _cell(_clamped(np.float32(k) + field[2, i, j, k], width), width)
                out[i, j, k] = _mixed(image, a, a1, z, b, b1, y, c, c1, x)


@_compile
def _moving_ends(z, y, x):  # type: ignore[no-untyped-def]
    """The first voxel of a row whose vector is not zero, and the one after the last; equal where none is."""
    first, last = 0, z.shape[0]
    while first < last and z[first] == 0 and y[first] == 0 and x[first] == 0:
        first += 1
    while last > first and z[last - 1] == 0 and y[last - 1] == 0 and x[last - 1] == 0:
        last -= 1
    return first, last


@_compile
def compose_scaled(
    start: int, stop: int, outer: FloatVolume, inner: FloatVolume, scale: float, out: FloatVolume
) -> None:
    """``out(p) = s inner(p) + outer(p + s inner(p))`` with ``s = scale``, outer clamped to its border.

    All fields ``(3, D, H, W)`` of one shape; ``out`` must not share memory with ``outer``. The ends of a row where
    ``inner`` is zero are copied: the background of a skull-stripped image costs no interpolation.
    """
    _, depth, height, width = outer.shape
    outer_z, outer_y, outer_x = outer[0], outer[1], outer[2]
    s = np.float32(scale)
    for i in range(start, stop):
        for j in range(height):
            first, last = _moving_ends(inner[0, i, j], inner[1, i, j], inner[2, i, j])
            for n in range(3):
                source, target = outer[n, i, j], out[n, i, j]
                for k in range(first):
                    target[k] = source[k]
                for k in range(last, width):
                    target[k] = source[k]
            for k in range(first, last):
                dz, dy, dx = s * inner[0, i, j, k], s * inner[1, i, j, k], s * inner[2, i, j, k]
                a, a1, z = _cell(_clamped(np.float32(i) + dz, depth), depth)
                b, b1, y = _cell(_clamped(np.float32(j) + dy, height), height)
                c, c1, x = _cell(_clamped(np.float32(k) + dx, width), width)
                out[0, i, j, k] = dz + _mixed(outer_z, a, a1, z, b, b1, y, c, c1, x)
                out[1, i, j, k] = dy + _mixed(outer_y, a, a1, z, b, b1, y, c, c1, x)
                out[2, i, j, k] = dx + _mixed(outer_x, a, a1, z, b, b1, y, c, c1, x)


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


@_compile
def largest_square_within(start, stop, field, matrix, mask, out):  # type: ignore[no-untyped-def]
    """Per plane the largest ``|M field(p)|^2`` over the mask into ``out`` ``(D,)``; ``matrix`` is 3x3 float32."""
    for i in range(start, stop):
        largest = np.float32(0.0)
        for j in range(field.shape[2]):
            z, y, x, inside = field[0, i, j], field[1, i, j], field[2, i, j], mask[i, j]
            for k in range(z.shape[0]):
                if inside[k]:
                    a = matrix[0, 0] * z[k] + matrix[0, 1] * y[k] + matrix[0, 2] * x[k]
                    b = matrix[1, 0] * z[k] + matrix[1, 1] * y[k] + matrix[1, 2] * x[k]
                    c = matrix[2, 0] * z[k] + matrix[2, 1] * y[k] + matrix[2, 2] * x[k]
                    largest = max(largest, a * a + b * b + c * c)
        out[i] = largest


def largest_length(field: FloatVolume) -> float:
    """Length of the longest vector of a field ``(3, D, H, W)`` float32."""
    per_plane = np.empty(field.shape[1], dtype=np.float32)
    run_slabs(_largest_square, field.shape[1], field, per_plane)
    return float(np.sqrt(per_plane.max()))


@_compile
def _halves(position, ratio, size):  # type: ignore[no-untyped-def]
    """The two coarse voxels that a fine one lies between, and its place between them; the border repeats."""
    at = max((np.float32(position) + np.float32(0.5)) / np.float32(ratio) - np.float32(0.5), np.float32(0.0))
    low = min(int(at), size - 1)
    return low, min(low + 1, size - 1), at - np.float32(low)


@_compile
def enlarge_slab(start, stop, field, ratio, out):  # type: ignore[no-untyped-def]
    """A coarse field ``(3, d, h, w)`` on voxels ``ratio`` times smaller, linear; vectors counted in the new voxels.

    The first voxels' outer faces coincide; ``out`` ``(3, D, H, W)`` says how many fine voxels there are.
    """
    _, depth, height, width = field.shape
    plane = np.empty((height, width), dtype=np.float32)
    row = np.empty(width, dtype=np.float32)
    for n in range(3):
        for i in range(start, stop):
            a, a1, z = _halves(i, ratio, depth)
            for j in range(height):
                near, far, mixed = field[n, a, j], field[n, a1, j], plane[j]
                for k in range(width):
                    mixed[k] = np.float32(ratio) * (near[k] + z * (far[k] - near[k]))
            for j in range(out.shape[2]):
                b, b1, y = _halves(j, ratio, height)
                near, far = plane[b], plane[b1]
                for k in range(width):
                    row[k] = near[k] + y * (far[k] - near[k])
                fine = out[n, i, j]
                for k in range(out.shape[3]):
                    c, c1, x = _halves(k, ratio, width)
                    fine[k] = row[c] + x * (row[c1] - row[c])


@_compile
def composed_length(start, stop, outer, inner, matrix, mask, sums):  # type: ignore[no-untyped-def]
    """Per plane the sum over the mask of ``|M (inner(p) + outer(p + inner(p)))|`` into ``sums`` ``(D,)``.

    ``matrix`` is 3x3 float32 (voxels to mm); fields as in :func:`compose_scaled`.
    """
    _, depth, height, width = outer.shape
    drift = np.empty(3, dtype=np.float32)
    for i in range(start, stop):
        total = 0.0
        for j in range(height):
            for k in range(width):
                if not mask[i, j, k]:
                    continue
                a, a1, z = _cell(_clamped(np.float32(i) + inner[0, i, j, k], depth), depth)
                b, b1, y = _cell(_clamped(np.float32(j) + inner[1, i, j, k], height), height)
                c, c1, x = _cell(_clamped(np.float32(k) + inner[2, i, j, k], width), width)
                for n in range(3):
                    drift[n] = inner[n, i, j, k] + _mixed(outer[n], a, a1, z, b, b1, y, c, c1, x)
                length = np.float32(0.0)
                for n in range(3):
                    mm = matrix[n, 0] * drift[0] + matrix[n, 1] * drift[1] + matrix[n, 2] * drift[2]
                    length += mm * mm
                total += np.sqrt(length)
        sums[i] = total


@_compile
def _slope(below, above, steps):  # type: ignore[no-untyped-def]
    return (above - below) / np.float32(steps)


@_compile
def jacobian_determinant(start: int, stop: int, field: FloatVolume, out: FloatVolume) -> None:
    """Determinant of the Jacobian of ``p + field(p)``: central differences inside, one-sided at the border."""
    _, depth, height, width = field.shape
    one = np.float32(1.0)
    for i in range(start, stop):
        i0, i1 = max(i - 1, 0), min(i + 1, depth - 1)
        for j in range(height):
            j0, j1 = max(j - 1, 0), min(j + 1, height - 1)
            for k in range(width):
                k0, k1 = max(k - 1, 0), min(k + 1, width - 1)
                a = one + _slope(field[0, i0, j, k], field[0, i1, j, k], i1 - i0)
                b = _slope(field[0, i, j0, k], field[0, i, j1, k], j1 - j0)
                c = _slope(field[0, i, j, k0], field[0, i, j, k1], k1 - k0)
                d = _slope(field[1, i0, j, k], field[1, i1, j, k], i1 - i0)
                e = one + _slope(field[1, i, j0, k], field[1, i, j1, k], j1 - j0)
                f = _slope(field[1, i, j, k0], field[1, i, j, k1], k1 - k0)
                g = _slope(field[2, i0, j, k], field[2, i1, j, k], i1 - i0)
                h = _slope(field[2, i, j0, k], field[2, i, j1, k], j1 - j0)
                m = one + _slope(field[2, i, j, k0], field[2, i, j, k1], k1 - k0)
                out[i, j, k] = a * (e * m - f * h) - b * (d * m - f * g) + c * (d * h - e * g)


def determinants(field: FloatVolume) -> FloatVolume:
    """Determinants ``(D, H, W)`` of the Jacobian of ``p + field(p)``, from a contiguous ``(3, D, H, W)`` float32.

    Raises:
        GeometryError: when an axis has a single voxel, along which nothing has a slope.
    """
    if min(field.shape[1:]) < 2:
        raise GeometryError(f"a Jacobian needs two voxels along every axis, got a grid of {field.shape[1:]}")
    out = np.empty_like(field[0])
    run_slabs(jacobian_determinant, field.shape[1], field, out)
    return out


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
                inside = -0.5 <= z <= depth - 0.5 and -0.5 <= y <= height - 0.5 and -0.5 <= x <= width - 0.5
                if not inside:
                    out[i, j, k] = 0
                    continue
                d, d1, z = _cell(min(max(z, 0.0), depth - 1.0), depth)
                h, h1, y = _cell(min(max(y, 0.0), height - 1.0), height)
                w, w1, x = _cell(min(max(x, 0.0), width - 1.0), width)
                out[i, j, k] = _mixed(image, d, d1, z, h, h1, y, w, w1, x)


@_compile
def _reach(start, step, size, first, last):  # type: ignore[no-untyped-def]
    """Of the steps k in ``[first, last)`` those for which ``start + k step`` lies in ``[-0.5, size - 0.5]``."""
    while first < last and not (-0.5 <= start + first * step <= size - 0.5):
        first += 1
    while last > first and not (-0.5 <= start + (last - 1) * step <= size - 0.5):
        last -= 1
    return first, last


@_compile
def warp_linear(start, stop, image, matrix, out):  # type: ignore[no-untyped-def]
    """:func:`warp_through` without a field: ``out(p) = image(M p)``. A row of voxels meets the image in one piece."""
    depth, height, width = image.shape
    for i in range(start, stop):
        for j in range(out.shape[1]):
            z0 = matrix[0, 0] * i + matrix[0, 1] * j + matrix[0, 3]
            y0 = matrix[1, 0] * i + matrix[1, 1] * j + matrix[1, 3]
            x0 = matrix[2, 0] * i + matrix[2, 1] * j + matrix[2, 3]
            first, last = _reach(z0, matrix[0, 2], depth, 0, out.shape[2])
            first, last = _reach(y0, matrix[1, 2], height, first, last)
            first, last = _reach(x0, matrix[2, 2], width, first, last)
            row = out[i, j]
            row[:] = np.float32(0)
            for k in range(first, last):
                d, d1, z = _cell(np.float32(min(max(z0 + k * matrix[0, 2], 0.0), depth - 1.0)), depth)
                h, h1, y = _cell(np.float32(min(max(y0 + k * matrix[1, 2], 0.0), height - 1.0)), height)
                w, w1, x = _cell(np.float32(min(max(x0 + k * matrix[2, 2], 0.0), width - 1.0)), width)
                row[k] = _mixed(image, d, d1, z, h, h1, y, w, w1, x)


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
                z = np.floor(matrix[0, 0] * a + matrix[0, 1] * b + matrix[0, 2] * c + matrix[0, 3] + 0.5)
                y = np.floor(matrix[1, 0] * a + matrix[1, 1] * b + matrix[1, 2] * c + matrix[1, 3] + 0.5)
                x = np.floor(matrix[2, 0] * a + matrix[2, 1] * b + matrix[2, 2] * c + matrix[2, 3] + 0.5)
                if 0 <= z < depth and 0 <= y < height and 0 <= x < width:
                    out[i, j, k] = labels[int(z), int(y), int(x)]
                else:
                    out[i, j, k] = 0
