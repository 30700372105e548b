"""The synthesis kernel (Triton): samples from all bands of one level in one pass, the adjoint of the analysis.

Conventions
    Shapes and flags as in :mod:`medwave.wavelets.backends.gpu_analysis`; ``TAPS[2 * PAIRS * s + k]`` is tap ``k`` of
    filter ``s`` of ``SIDE``. Samples are made in pairs: pair ``u`` of an axis is the extended positions
    ``2 u`` and ``2 u + 1``, samples ``2 u - OFFSET`` and the next, and is a sum over coefficients ``u - j``. So both
    members of a pair, along each axis, come from the same loads. A program makes ``BR`` by ``BW`` pairs and marches
    along the depth; coefficient planes, filtered along rows and columns, stay in registers.
    ``FOLD``: what the extension read beyond the border goes back to the samples that stood there. A sample collects
    from each of its copies (:func:`medwave.wavelets.backends.gpu_index.mirrored`); ``views`` counts the copies per
    axis. Zero and even periodic borders have none. With copies a plane is computed afresh for each use.
"""

from __future__ import annotations

import triton
import triton.language as tl

from medwave.wavelets.backends.gpu_index import add, coefficient, collect, collects, fetch, group, mirrored, zeros


@triton.jit
def indices(
    u: tl.tensor, lanes: tl.tensor, count: tl.tensor, PAIRS: tl.constexpr, PERIODIC: tl.constexpr, FAR: tl.constexpr,
    FOLD: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """The coefficients ``u - j`` that make pair ``u``; -1 for zeros, and for lanes that are left out."""
    found = ()  # type: tuple[object, ...]
    for j in tl.static_range(PAIRS):
        index = coefficient(u - j, count, PERIODIC, FAR)
        if FOLD != "":
            index = tl.where(lanes >= 0, index, -1)
        found = found + (index,)
    return found


@triton.jit
def row(
    bands: tl.tensor, at: tl.tensor, seen: tl.tensor, columns: tl.tuple, band_size: tl.tensor, TAPS: tl.constexpr,
    PAIRS: tl.constexpr, SIDE: tl.constexpr, ALONG_W: tl.constexpr, PAIRED: tl.constexpr, MASKED: tl.constexpr,
    BR: tl.constexpr, BW: tl.constexpr, ACC: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """Even and odd samples along the width from the rows at ``at``; bands are ``band_size`` apart."""
    if PAIRED:
        pairs = zeros(2, BR, BW, ACC)
        for s in tl.static_range(SIDE):
            where = s * band_size + at[:, None] + columns[0][None, :]
            values = tl.load(bands + where, mask=columns[1][None, :], other=0.0).to(ACC)
            pairs = add(pairs, (values,), TAPS, 2 * s, 2)
    elif ALONG_W:
        pairs = zeros(2, BR, BW, ACC)
        for s in tl.static_range(SIDE):
            for j in tl.static_range(PAIRS):
                known = tl.minimum(seen[:, None], columns[j][None, :])
                where = s * band_size + at[:, None] + columns[j][None, :]
                pairs = add(pairs, (fetch(bands, where, known, MASKED, ACC),), TAPS, 2 * (s * PAIRS + j), 2)
    else:
        known = tl.minimum(seen[:, None], columns[0][None, :])
        pairs = (fetch(bands, at[:, None] + columns[0][None, :], known, MASKED, ACC),)
    return pairs


@triton.jit
def folded_row(
    bands: tl.tensor, at: tl.tensor, seen: tl.tensor, axis: tl.tuple, band_size: tl.tensor, TAPS: tl.constexpr,
    PAIRS: tl.constexpr, SIDE: tl.constexpr, OFFSET: tl.constexpr, PERIODIC: tl.constexpr, FAR: tl.constexpr,
    FOLD: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr, ACC: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """:func:`row` with the border folded back."""
    u, first, last, size, count, views = axis
    total = zeros(2, BR, BW, ACC)
    for k in range(views):
        if collects(k, first, last, size, count, views, OFFSET, PAIRS, FOLD):
            pair, swap, even, odd, lanes = mirrored(k, u, size, views, OFFSET, FOLD)
            columns = indices(pair, lanes, count, PAIRS, PERIODIC, FAR, FOLD)
            part = row(bands, at, seen, columns, band_size, TAPS, PAIRS, SIDE, True, False, True, BR, BW, ACC)
            total = collect(total, part, swap, even, odd)
    return total


@triton.jit
def lines(
    bands: tl.tensor, at: tl.tensor, seen: tl.tensor, rows: tl.tuple, stride: tl.tensor, columns: tl.tuple,
    axis_w: tl.tuple, band_size: tl.tensor, TAPS: tl.constexpr, PAIRS: tl.constexpr, SIDE: tl.constexpr,
    OFFSET: tl.constexpr, PERIODIC: tl.constexpr, MASKED: tl.constexpr, FAR: tl.constexpr, FOLD: tl.constexpr,
    ALONG_R: tl.constexpr, ALONG_W: tl.constexpr, PAIRED: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr,
    ACC: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """Pairs along rows and columns from the plane at ``at``: groups (row even, row odd) of (column even, odd)."""
    BY_W: tl.constexpr = SIDE if ALONG_W else 1
    total = zeros((2 if ALONG_R else 1) * (2 if ALONG_W else 1), BR, BW, ACC)
    for s in tl.static_range(SIDE if ALONG_R else 1):
        for j in tl.static_range(PAIRS if ALONG_R else 1):
            start = s * BY_W * band_size + at + rows[j] * stride
            known = tl.minimum(rows[j], seen)
            if FOLD != "" and ALONG_W:
                part = folded_row(
                    bands, start, known, axis_w, band_size, TAPS, PAIRS, SIDE, OFFSET, PERIODIC, FAR, FOLD, BR, BW, ACC
                )
            else:
                part = row(
                    bands, start, known, columns, band_size, TAPS, PAIRS, SIDE, ALONG_W, PAIRED, MASKED, BR, BW, ACC
                )
            total = add(total, part, TAPS, 2 * (s * PAIRS + j), 2) if ALONG_R else part
    return total


@triton.jit
def plane(
    bands: tl.tensor, at: tl.tensor, seen: tl.tensor, rows: tl.tuple, stride: tl.tensor, columns: tl.tuple,
    axis_r: tl.tuple, axis_w: tl.tuple, band_size: tl.tensor, TAPS: tl.constexpr, PAIRS: tl.constexpr,
    SIDE: tl.constexpr, OFFSET: tl.constexpr, PERIODIC: tl.constexpr, MASKED: tl.constexpr, FAR: tl.constexpr,
    FOLD: tl.constexpr, ALONG_R: tl.constexpr, ALONG_W: tl.constexpr, PAIRED: tl.constexpr, BR: tl.constexpr,
    BW: tl.constexpr, ACC: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """:func:`lines`, with the borders of the rows folded back."""
    if FOLD != "" and ALONG_R:
        u, first, last, size, count, views = axis_r
        total = zeros(2 * (2 if ALONG_W else 1), BR, BW, ACC)
        for k in range(views):
            if collects(k, first, last, size, count, views, OFFSET, PAIRS, FOLD):
                pair, swap, even, odd, lanes = mirrored(k, u, size, views, OFFSET, FOLD)
                found = indices(pair, lanes, count, PAIRS, PERIODIC, FAR, FOLD)
                part = lines(
                    bands, at, seen, found, stride, columns, axis_w, band_size, TAPS, PAIRS, SIDE, OFFSET, PERIODIC,
                    MASKED, FAR, FOLD, ALONG_R, ALONG_W, PAIRED, BR, BW, ACC,
                )  # fmt: skip
                total = collect(total, part, swap, even, odd)
    else:
        total = lines(
            bands, at, seen, rows, stride, columns, axis_w, band_size, TAPS, PAIRS, SIDE, OFFSET, PERIODIC, MASKED, FAR,
            FOLD, ALONG_R, ALONG_W, PAIRED, BR, BW, ACC,
        )  # fmt: skip
    return total


@triton.jit
def write_plane(
    out: tl.tensor, pairs: tl.tuple, at: tl.tensor, stride: tl.tensor, rows: tl.tensor, columns: tl.tensor,
    height: tl.tensor, width: tl.tensor, ALONG_R: tl.constexpr, ALONG_W: tl.constexpr, BR: tl.constexpr,
    BW: tl.constexpr,
) -> None:  # fmt: skip
    """Store the samples of one plane, even and odd rows apart, even and odd columns merged."""
    SIDE: tl.constexpr = 2 if ALONG_W else 1
    for p in tl.static_range(2 if ALONG_R else 1):
        if ALONG_W:
            tile = tl.reshape(tl.join(pairs[p * SIDE], pairs[p * SIDE + 1]), (BR, 2 * BW))
        else:
            tile = pairs[p]
        line = rows + p
        inside = ((line >= 0) & (line < height))[:, None] & ((columns >= 0) & (columns < width))[None, :]
        where = (at + line * stride)[:, None] + columns[None, :]
        tl.store(out + where, tile.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=(
    "rows", "pre", "depth", "height", "width", "depth_in", "height_in", "width_in", "views_a", "views_r", "views_w",
    "chunk",
))  # fmt: skip
def synthesis(
    bands: tl.tensor, out: tl.tensor, rows: tl.tensor, pre: tl.tensor, depth: tl.tensor, height: tl.tensor,
    width: tl.tensor, depth_in: tl.tensor, height_in: tl.tensor, width_in: tl.tensor, views_a: tl.tensor,
    views_r: tl.tensor, views_w: tl.tensor, chunk: tl.tensor, TAPS: tl.constexpr, PAIRS: tl.constexpr,
    SIDE: tl.constexpr, OFFSET: tl.constexpr, PERIODIC: tl.constexpr, FAR: tl.constexpr, FOLD: tl.constexpr,
    ALONG_A: tl.constexpr, ALONG_R: tl.constexpr, ALONG_W: tl.constexpr, PAIRED: tl.constexpr, VEC: tl.constexpr,
    WIDE: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr, ACC: tl.constexpr,
) -> None:  # fmt: skip
    """A tile of samples, ``chunk`` pairs deep. ``rows``: of all images where height is not transformed.
    ``width`` and ``width_in`` count units of ``VEC`` and of half a ``VEC`` samples if ``PAIRED``.
    """
    START: tl.constexpr = OFFSET // 2
    BANDS: tl.constexpr = (SIDE if ALONG_A else 1) * (SIDE if ALONG_R else 1) * (SIDE if ALONG_W else 1)
    PLANE: tl.constexpr = (2 if ALONG_R else 1) * (2 if ALONG_W else 1)
    MASKED: tl.constexpr = FOLD != "" or not PERIODIC
    if PAIRED:
        width = width * VEC
        width_in = width_in * (VEC // 2)
    last_r = (OFFSET + height - 1) // 2
    last_w = (OFFSET + width - 1) // 2
    last_a = (OFFSET + depth - 1) // 2
    program = tl.program_id(0)
    tiles_w = tl.cdiv(last_w - START + 1 if ALONG_W else width, BW)
    tiles_r = tl.cdiv(last_r - START + 1 if ALONG_R else rows, BR)
    pieces = tl.cdiv(last_a - START + 1 if ALONG_A else 1, chunk)
    column = (program % tiles_w) * BW
    program = program // tiles_w
    first_r = (program % tiles_r) * BR
    program = program // tiles_r
    begin = START + (program % pieces) * chunk
    image = program // pieces
    w = column + tl.arange(0, BW)
    r = first_r + tl.arange(0, BR)
    if WIDE:
        r, w, pre = r.to(tl.int64), w.to(tl.int64), pre.to(tl.int64)
        depth, width = depth.to(tl.int64), width.to(tl.int64)
        depth_in, width_in = depth_in.to(tl.int64), width_in.to(tl.int64)
    if PAIRED:
        axis_w = (w, column, column, width, width_in, views_w)
        columns = (w, w < width_in)  # type: tuple[object, ...]
        samples = 2 * column + tl.arange(0, 2 * BW)
    elif ALONG_W:
        u_w = tl.minimum(w + START, last_w)
        axis_w = (u_w, column + START, tl.minimum(column + START + BW - 1, last_w), width, width_in, views_w)
        columns = indices(u_w, u_w, width_in, PAIRS, PERIODIC, FAR, "")
        samples = 2 * (column + START) - OFFSET + tl.arange(0, 2 * BW)
    else:
        axis_w = (w, column, column, width, width_in, views_w)
        columns = (tl.minimum(w, width - 1),)
        samples = w
    if ALONG_R:
        bands += image.to(tl.int64) * BANDS * depth_in * height_in * width_in
        out += image.to(tl.int64) * depth * height * width
        u_r = tl.minimum(r + START, last_r)
        axis_r = (u_r, first_r + START, tl.minimum(first_r + START + BR - 1, last_r), height, height_in, views_r)
        found = indices(u_r, u_r, height_in, PAIRS, PERIODIC, FAR, "")
        base, base_out, lines_out = u_r * 0, r * 0, 2 * (r + START) - OFFSET
        plane_in, plane_out, band_size = height_in * width_in, height * width, depth_in * height_in * width_in
        stride_out, end = width, height
    else:
        own = tl.minimum(r, rows - 1)
        axis_r = (own, first_r, first_r, height, height_in, views_r)
        found = (own * 0,)
        base = ((own // pre) * BANDS * pre + own % pre) * depth_in * width_in
        base_out, lines_out = own * 0, r
        plane_in, plane_out, band_size = width_in, width, pre * depth_in * width_in
        stride_out, end = depth * width, rows
    if ALONG_A:
        LEAD: tl.constexpr = PAIRS - 1 if FOLD == "" else 0
        kept = zeros(LEAD * SIDE * PLANE, BR, BW, ACC)
        for u in range(begin - LEAD, tl.minimum(begin + chunk, last_a + 1)):
            pairs = zeros(2 * PLANE, BR, BW, ACC)
            if FOLD == "":
                i = coefficient(u, depth_in, PERIODIC, FAR)
                planes = kept
                for s in tl.static_range(SIDE):
                    planes = planes + plane(
                        bands + s * (BANDS // SIDE) * band_size, base + i * plane_in, base * 0 + i, found, width_in,
                        columns, axis_r, axis_w, band_size, TAPS, PAIRS, SIDE, OFFSET, PERIODIC, MASKED, FAR, FOLD,
                        ALONG_R, ALONG_W, PAIRED, BR, BW, ACC,
                    )  # fmt: skip
                for j in tl.static_range(PAIRS):
                    for s in tl.static_range(SIDE):
                        part = group(planes, (PAIRS - 1 - j) * SIDE + s, PLANE)
                        pairs = add(pairs, part, TAPS, 2 * (s * PAIRS + j), 2)
                kept = planes[SIDE * PLANE :]
            else:
                for k in range(views_a):
                    if collects(k, u, u, depth, depth_in, views_a, OFFSET, PAIRS, FOLD):
                        pair, swap, even, odd, lanes = mirrored(k, u, depth, views_a, OFFSET, FOLD)
                        seen = indices(pair, lanes, depth_in, PAIRS, PERIODIC, FAR, FOLD)
                        part = zeros(2 * PLANE, BR, BW, ACC)
                        for j in tl.static_range(PAIRS):
                            for s in tl.static_range(SIDE):
                                one = plane(
                                    bands + s * (BANDS // SIDE) * band_size, base + seen[j] * plane_in, base * 0 +
                                    seen[j], found, width_in, columns, axis_r, axis_w, band_size, TAPS, PAIRS, SIDE,
                                    OFFSET, PERIODIC, MASKED, FAR, FOLD, ALONG_R, ALONG_W, PAIRED, BR, BW, ACC,
                                )  # fmt: skip
                                part = add(part, one, TAPS, 2 * (s * PAIRS + j), 2)
                        pairs = collect(pairs, part, swap, even, odd)
            if u >= begin:
                for p in tl.static_range(2):
                    a = 2 * u + p - OFFSET
                    if (a >= 0) & (a < depth):
                        write_plane(
                            out, group(pairs, p, PLANE), base_out + a * plane_out, stride_out, lines_out, samples, end,
                            width, ALONG_R, ALONG_W, BR, BW,
                        )  # fmt: skip
    else:
        pairs = plane(
            bands, base, base * 0, found, width_in, columns, axis_r, axis_w, band_size, TAPS, PAIRS, SIDE, OFFSET,
            PERIODIC, MASKED, FAR, FOLD, ALONG_R, ALONG_W, PAIRED, BR, BW, ACC,
        )  # fmt: skip
        write_plane(out, pairs, base_out, stride_out, lines_out, samples, end, width, ALONG_R, ALONG_W, BR, BW)
