"""The pictures of the neuron page: three projections with lines over them, and the tree in space.

Conventions
    Trees come in the units of a :class:`~medwave.reports.neuron_frame.Frame`. Lines over projections are SVG, so that
    they stay sharp and can be shown and hidden without a script; coordinates are :data:`SUBPIXELS` per pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from medwave.core.tree import Float64Array, Tree
from medwave.core.tree_paths import topology
from medwave.metrics import nearest_on_tree
from medwave.reports import colours
from medwave.reports.colours import UInt8Array
from medwave.reports.figures import nice_limit
from medwave.reports.neuron_frame import AXES, PLANES, Frame, to_size
from medwave.reports.oblique import oblique_view
from medwave.reports.page import ColourBar, Picture, colour_bar, number, picture
from medwave.reports.tree_lines import Lines, packed, part_of, svg_path, tree_lines
from medwave.tracing import crop

SUBPIXELS = 4
TOLERANCE_PX = 0.35
PICTURE_BYTES = 380_000
"""What all projections of a page may take together; they are compressed harder until they do."""
QUALITIES = ((88, 1.0), (76, 1.0), (62, 1.0), (46, 1.0), (46, 0.7), (40, 0.5), (30, 0.35))
"""JPEG quality, and size relative to what is shown."""

ORDERS = colours.SEQUENTIAL[np.linspace(92, 255, 256).astype(int)]
RADII = colours.WARM[np.linspace(96, 255, 256).astype(int)]
DISTANCES = colours.WARM[np.linspace(255, 70, 256).astype(int)]
TREE, EXTRA, GOLD = colours.ORANGE, (255, 90, 215), colours.BLUE
VIEWS = ((-32.0, 20.0), (32.0, 20.0), (20.0, 62.0))
VIEW_PX = (520, 460)
STILL_QUALITY = 80
TITLES = {"xy": "x to the right, y down", "xz": "x to the right, z down", "zy": "z to the right, y down"}


@dataclass(frozen=True)
class Panel:
    """One projection: its pictures by layer, and lines over them; ``extra``: those of the tree far from the gold."""

    plane: str
    title: str
    width: int
    height: int
    layers: Sequence[tuple[str, Picture]]
    tree: str
    extra: str
    gold: str
    roots: str


@dataclass(frozen=True)
class Ortho:
    """Three projections at one scale, laid out so that neighbours share an axis."""

    panels: Mapping[str, Panel]
    layers: Sequence[str]
    scale_share: float
    scale_text: str
    has_gold: bool
    bytes: int


@dataclass(frozen=True)
class Colouring:
    """One way to colour the tree: its name, its colour bar, its 256 colours, value per point in 0 to 255."""

    key: str
    name: str
    bar: ColourBar
    table: UInt8Array
    level: UInt8Array


@dataclass(frozen=True)
class Scene:
    """The tree in space: still pictures, and what a script needs to turn it."""

    stills: Sequence[Picture]
    colourings: Sequence[Colouring]
    data: Mapping[str, object]
    script: str
    alt: str
    keys: Sequence[tuple[str, str]]


def lines_of(tree: Tree, frame: Frame, gold: Tree | None = None) -> Lines:
    """A tree as lines for the pictures; their value is the distance to the gold tree, where one is given."""
    distance = None
    if gold is not None and gold.length > 0 and len(tree):
        distance = nearest_on_tree(tree.positions, gold).distance
    return tree_lines(tree, tolerance=TOLERANCE_PX / frame.px_per_unit, value=distance)


def inside(tree: Tree, frame: Frame) -> Tree:
    """The part of a tree in the box: a gold tree may reach beyond the volume."""
    return crop(tree, np.zeros(3), np.array(frame.size))


def ortho(
    name: str,
    frame: Frame,
    layers: Mapping[str, Mapping[str, UInt8Array]],
    lines: Lines,
    gold: Lines | None,
    tolerance: float,
) -> Ortho:
    """Lay out the projections.

    Args:
        name: of the volume, for alternative texts.
        frame: the box.
        layers: title -> plane -> grey levels.
        lines: the tree.
        gold: the gold tree.
        tolerance: from here on the tree is away from the gold tree.
    """
    away = lines.value > (np.inf if gold is None else tolerance)
    extra = away & np.append(away[1:], False)
    for quality, share in QUALITIES:
        pictures = {
            layer: {
                plane: picture(
                    to_size(levels[plane], tuple(max(2, round(n * share)) for n in frame.pixels(plane))),
                    alt=f"{layer} of {name}, maximum along {_along(plane)}",
                    quality=quality,
                )
                for plane in PLANES
            }
            for layer, levels in layers.items()
        }
        size = sum(len(p.address) for planes in pictures.values() for p in planes.values())
        if size <= PICTURE_BYTES:
            break
    panels = {}
    for plane in PLANES:
        width, height = frame.pixels(plane)
        panels[plane] = Panel(
            plane=plane,
            title=TITLES[plane],
            width=width,
            height=height,
            layers=[(layer, planes[plane]) for layer, planes in pictures.items()],
            tree=_path(part_of(lines, ~extra), frame, plane),
            extra=_path(part_of(lines, extra), frame, plane),
            gold="" if gold is None else _path(gold, frame, plane),
            roots=_dots(lines.roots, frame, plane),
        )
    share, text = frame.scale_bar
    return Ortho(panels, list(layers), share, text, gold is not None, size)


def scene(frame: Frame, walls: Mapping[str, UInt8Array], tree: Tree, lines: Lines, gold: Lines | None) -> Scene:
    """The tree in its box.

    Args:
        frame: the box.
        walls: grey levels of the projections by plane.
        tree: the tree, for its description.
        lines: the same as lines.
        gold: the gold tree.
    """
    ways = _colourings(lines, frame, gold is not None)
    stills = [
        picture(
            oblique_view(
                frame, walls, lines, ways[0].table[ways[0].level], azimuth=azimuth, elevation=elevation, size_px=VIEW_PX
            ),
            alt=f"The tree in its box, seen {_from(azimuth, elevation)}; colour shows branch order",
            caption=f"Seen {_from(azimuth, elevation)}",
            quality=STILL_QUALITY,
        )
        for azimuth, elevation in VIEWS
    ]
    counts = topology(tree)
    alt = (
        f"Turning view of the tree: {number(counts.branches)} branches in {number(counts.roots)} pieces over maximum "
        "projections of the volume. Arrow keys turn it, plus and minus zoom, space starts and stops, Home resets."
    )
    keys = ((colours.css(GOLD), "gold tree"),) if gold is not None else ()
    return Scene(stills, ways, _data(frame, lines, gold, ways), vendored("three.min.js"), alt, keys)


def vendored(name: str) -> str:
    """The text of a file that is shipped with this package."""
    return (resources.files("medwave.reports") / "vendor" / name).read_text(encoding="utf-8")


def _path(lines: Lines, frame: Frame, plane: str) -> str:
    columns, rows = frame.on_picture(lines.points, plane)
    return svg_path(lines, columns * SUBPIXELS, rows * SUBPIXELS)


def _dots(points: Float64Array, frame: Frame, plane: str) -> str:
    """Lines of no length, which round caps make into dots."""
    columns, rows = frame.on_picture(points, plane)
    return "".join(
        f"M{round(x * SUBPIXELS)} {round(y * SUBPIXELS)}h0"
        for x, y in zip(columns.tolist(), rows.tolist(), strict=True)
    )


def _from(azimuth: float, elevation: float) -> str:
    return f"{abs(azimuth):.0f}° from the {'left' if azimuth < 0 else 'right'}, {elevation:.0f}° from above"


def _along(plane: str) -> str:
    return "xyz"[({0, 1, 2} - set(AXES[plane])).pop()]


def _colourings(lines: Lines, frame: Frame, with_gold: bool) -> list[Colouring]:
    """Branch order, radius, and distance to the gold tree where there is one."""
    orders = np.repeat(lines.order, np.diff(lines.starts)).astype(np.float64)
    deepest = int(orders.max(initial=2))
    ticks = [((n - 1) / (deepest - 1), str(n)) for n in _order_ticks(deepest)]
    ways = [_colouring("order", "Branch order", orders, 1.0, float(deepest), ORDERS, ticks)]
    thickest = nice_limit(float(np.percentile(lines.radius, 98)) if len(lines.radius) else 1.0)
    ways.append(_colouring("radius", "Radius", lines.radius, 0.0, thickest, RADII, _value_ticks(thickest, frame.unit)))
    if with_gold:
        limit = nice_limit(10 * min(frame.step))
        ticks = _value_ticks(limit, frame.unit, more=True)
        ways.append(_colouring("distance", "Distance to gold", lines.value, 0.0, limit, DISTANCES, ticks))
    return ways


def _colouring(
    key: str,
    name: str,
    values: Float64Array,
    low: float,
    high: float,
    table: UInt8Array,
    ticks: Sequence[tuple[float, str]],
) -> Colouring:
    level = np.rint(255 * np.clip((values - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)
    return Colouring(key, name, colour_bar(table, label=name, ticks=ticks), table, level)


def _order_ticks(deepest: int) -> list[int]:
    return sorted({round(n) for n in np.linspace(1, deepest, min(deepest, 5))})


def _value_ticks(high: float, unit: str, *, more: bool = False) -> list[tuple[float, str]]:
    return [(0.0, "0"), (0.5, f"{high / 2:g}"), (1.0, f"{high:g} {unit}{' or more' if more else ''}")]


def _data(frame: Frame, lines: Lines, gold: Lines | None, ways: Sequence[Colouring]) -> dict[str, object]:
    """What the script gets: places are 16-bit shares of the box that holds all of them."""
    everything = [lines.points, np.array([[0.0, 0.0, 0.0], frame.size])]
    if gold is not None:
        everything.append(gold.points)
    low, high = (f(np.concatenate(everything), axis=0) for f in (np.min, np.max))
    thickest = max(float(lines.radius.max(initial=0.0)), 1e-6)

    def places(points: Float64Array) -> str:
        return packed(np.rint((points - low) / (high - low) * 65535), "u2")

    return {
        "size": list(frame.size),
        "low": low.tolist(),
        "high": high.tolist(),
        "thickest": thickest,
        "points": places(lines.points),
        "radius": packed(np.rint(lines.radius / thickest * 65535), "u2"),
        "starts": packed(lines.starts, "u4"),
        "somata": lines.somata.tolist(),
        "gold": None if gold is None else {"points": places(gold.points), "starts": packed(gold.starts, "u4")},
        "goldColour": colours.css(GOLD),
        "colours": {way.key: {"table": packed(way.table, "u1"), "level": packed(way.level, "u1")} for way in ways},
    }
