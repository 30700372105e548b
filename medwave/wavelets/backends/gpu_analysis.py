"""The analysis kernel (Triton): all bands of one level in one pass over the samples.

Conventions
    Samples are ``(images, depth, height, width)``, bands ``(images, bands, depth', height', width')``. A program makes
    a tile of ``BR`` rows by ``BW`` columns of every band and marches along the depth: each step filters two new planes
    along rows and columns, the planes before stay in registers, and their sum along the depth is written.
    ``ALONG_A``, ``ALONG_R``, ``ALONG_W`` say which axes are transformed: all three in 3-D; depth and width in 2-D,
    where an image has one row per depth and a tile's rows are images; width alone in 1-D; depth alone for one pass of
    a long filter. Where height is not transformed, rows come in groups of ``pre`` that share an image.
    ``TAPS[k * SIDE + s]`` is tap ``k`` of filter ``s`` of ``SIDE``; window ``i`` begins at sample ``2 i - OFFSET``.
    ``PAIRED``: two taps on an even width, where a row is read as whole vectors and parted in registers. ``VEC`` samples
    are one vector; widths come in units of it, which tells the compiler what is aligned.
"""

from __future__ import annotations

import triton
import triton.language as tl

from medwave.wavelets.backends.gpu_index import add, fetch, group, source, zeros


@triton.jit
def windows(
    first: tl.tensor, size: tl.tensor, COUNT: tl.constexpr, BEYOND: tl.constexpr, REPEAT: tl.constexpr,
    FAR: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """The sample under each tap of the windows that begin at ``first``."""
    index = ()  # type: tuple[object, ...]
    for k in tl.static_range(COUNT):
        index = index + (source(first + k, size, BEYOND, REPEAT, FAR),)
    return index


@triton.jit
def row(
    x: tl.tensor, at: tl.tensor, seen: tl.tensor, columns: tl.tuple, TAPS: tl.constexpr, SIDE: tl.constexpr,
    ALONG_W: tl.constexpr, PAIRED: tl.constexpr, MASKED: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr,
    ACC: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """One tile per band along the width, from the rows that begin at ``at`` (zeros where ``seen`` is -1)."""
    if PAIRED:
        samples = tl.load(x + at[:, None] + columns[0][None, :], mask=columns[1][None, :], other=0.0).to(ACC)
        left, right = tl.split(tl.reshape(samples, (BR, BW, 2)))
        bands = add(zeros(SIDE, BR, BW, ACC), (left,), TAPS, 0, SIDE)
        bands = add(bands, (right,), TAPS, SIDE, SIDE)
    elif ALONG_W:
        bands = zeros(SIDE, BR, BW, ACC)
        for k in tl.static_range(len(TAPS) // SIDE):
            known = tl.minimum(seen[:, None], columns[k][None, :])
            bands = add(bands, (fetch(x, at[:, None] + columns[k][None, :], known, MASKED, ACC),), TAPS, k * SIDE, SIDE)
    else:
        known = tl.minimum(seen[:, None], columns[0][None, :])
        bands = (fetch(x, at[:, None] + columns[0][None, :], known, MASKED, ACC),)
    return bands


@triton.jit
def plane(
    x: tl.tensor, at: tl.tensor, seen: tl.tensor, rows: tl.tuple, stride: tl.tensor, columns: tl.tuple,
    TAPS: tl.constexpr, SIDE: tl.constexpr, ALONG_R: tl.constexpr, ALONG_W: tl.constexpr, PAIRED: tl.constexpr,
    MASKED: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr, ACC: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """One tile per band of rows and columns, from the plane that begins at ``at``; rows are ``stride`` apart."""
    if ALONG_R:
        bands = zeros(SIDE * SIDE if ALONG_W else SIDE, BR, BW, ACC)
        for k in tl.static_range(len(TAPS) // SIDE):
            known = tl.minimum(rows[k], seen)
            part = row(x, at + rows[k] * stride, known, columns, TAPS, SIDE, ALONG_W, PAIRED, MASKED, BR, BW, ACC)
            bands = add(bands, part, TAPS, k * SIDE, SIDE)
    else:
        known = tl.where(rows[0] >= 0, seen, -1)
        bands = row(x, at + rows[0] * stride, known, columns, TAPS, SIDE, ALONG_W, PAIRED, MASKED, BR, BW, ACC)
    return bands


@triton.jit
def write(out: tl.tensor, bands: tl.tuple, at: tl.tensor, size: tl.tensor, inside: tl.tensor) -> None:
    """Store each band's tile; bands are ``size`` elements apart."""
    for b in tl.static_range(len(bands)):
        tl.store(out + b * size + at, bands[b].to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=("rows", "pre", "depth", "height", "width", "depth_out", "width_out", "chunk"))
def analysis(
    x: tl.tensor, out: tl.tensor, rows: tl.tensor, pre: tl.tensor, depth: tl.tensor, height: tl.tensor,
    width: tl.tensor, depth_out: tl.tensor, width_out: tl.tensor, chunk: tl.tensor, TAPS: tl.constexpr,
    SIDE: tl.constexpr, OFFSET: tl.constexpr, BEYOND: tl.constexpr, REPEAT: tl.constexpr, MASKED: tl.constexpr,
    FAR: tl.constexpr, ALONG_A: tl.constexpr, ALONG_R: tl.constexpr, ALONG_W: tl.constexpr, PAIRED: tl.constexpr,
    VEC: tl.constexpr, WIDE: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr, ACC: tl.constexpr,
) -> None:  # fmt: skip
    """A tile of every band, ``chunk`` steps deep. ``rows``: of a band in 3-D, of all images where height is not
    transformed. ``width`` and ``width_out`` count units of ``VEC`` and of half a ``VEC`` samples if ``PAIRED``.
    """
    LEAD: tl.constexpr = len(TAPS) // SIDE - 2
    PLANE: tl.constexpr = (SIDE if ALONG_R else 1) * (SIDE if ALONG_W else 1)
    BANDS: tl.constexpr = PLANE * (SIDE if ALONG_A else 1)
    if PAIRED:
        width = width * VEC
        width_out = width_out * (VEC // 2)
    program = tl.program_id(0)
    tiles_w = tl.cdiv(width_out, BW)
    tiles_r = tl.cdiv(rows, BR)
    pieces = tl.cdiv(depth_out, chunk)
    column = (program % tiles_w) * BW
    program = program // tiles_w
    r = (program % tiles_r) * BR + tl.arange(0, BR)
    program = program // tiles_r
    begin = (program % pieces) * chunk
    image = program // pieces
    w = column + tl.arange(0, BW)
    if WIDE:
        r, w, pre = r.to(tl.int64), w.to(tl.int64), pre.to(tl.int64)
        depth, width = depth.to(tl.int64), width.to(tl.int64)
        depth_out, width_out = depth_out.to(tl.int64), width_out.to(tl.int64)
    inside = (r < rows)[:, None] & (w < width_out)[None, :]
    own_r = tl.minimum(r, rows - 1)  # what hangs over the edge reads what its neighbour reads
    own_w = tl.minimum(w, width_out - 1)
    if ALONG_R:
        x += image.to(tl.int64) * depth * height * width
        out += image.to(tl.int64) * BANDS * depth_out * rows * width_out
        base = own_r * 0
        lines = windows(2 * own_r - OFFSET, height, LEAD + 2, BEYOND, REPEAT, FAR)
        plane_in, plane_out = height * width, rows * width_out
        size = depth_out * plane_out
        at = (r * width_out)[:, None] + w[None, :]
    else:
        base = own_r * depth * width
        lines = (own_r * 0,)
        plane_in, plane_out = width, width_out
        size = pre * depth_out * width_out
        at = (((r // pre) * BANDS * pre + r % pre) * depth_out * width_out)[:, None] + w[None, :]
    if PAIRED:
        both = 2 * column + tl.arange(0, 2 * BW)
        columns = (both, both < width)  # type: tuple[object, ...]
    elif ALONG_W:
        columns = windows(2 * own_w - OFFSET, width, LEAD + 2, BEYOND, REPEAT, FAR)
    else:
        columns = (own_w,)
    if ALONG_A:
        kept = zeros(LEAD * PLANE, BR, BW, ACC)
        for i in range(begin - LEAD // 2, tl.minimum(begin + chunk, depth_out)):
            planes = kept
            for k in tl.static_range(LEAD, LEAD + 2):
                a = source(2 * i - OFFSET + k, depth, BEYOND, REPEAT, FAR)
                planes = planes + plane(
                    x, base + a * plane_in, base * 0 + a, lines, width, columns, TAPS, SIDE, ALONG_R, ALONG_W, PAIRED,
                    MASKED, BR, BW, ACC,
                )  # fmt: skip
            if i >= begin:
                bands = zeros(BANDS, BR, BW, ACC)
                for k in tl.static_range(LEAD + 2):
                    bands = add(bands, group(planes, k, PLANE), TAPS, k * SIDE, SIDE)
                write(out, bands, at + i * plane_out, size, inside)
            kept = planes[2 * PLANE :]
    else:
        bands = plane(
            x, base, base * 0, lines, width, columns, TAPS, SIDE, ALONG_R, ALONG_W, PAIRED, MASKED, BR, BW, ACC
        )
        write(out, bands, at, size, inside)
