"""The page on which the volumes of a registration are turned through: slices with one crosshair, one over another.

Conventions
    All layers lie on the fixed grid ``(D, H, W)``. One is below, another over it: blended, swiped or as a checkerboard.
    Signed layers are black where nothing differs, and are laid over by adding light. Slices are in neurological
    display, as in :mod:`medwave.reports.sections`. Layers are NIfTI files, either beside the page or, at half the
    resolution and with 256 levels between the ends of what is shown, in it. Without WebGL 2 still pictures stand there.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medwave.core.files import write_text
from medwave.core.geometry import Grid, Volume
from medwave.reports import colours, figures
from medwave.reports.colours import UInt8Array
from medwave.reports.grey_values import finite
from medwave.reports.page import ColourBar, Figure, Strip, colour_bar, picture, render
from medwave.reports.sections import Sections
from medwave.volumes import nifti_bytes

Array = npt.NDArray[np.generic]
LABELS_APART = 255
"""More labels than this share colours."""

_FOLDED = -5.0
_MOST_DOUBLINGS = 4.0


@dataclass(frozen=True)
class VolumeLayer:
    """One volume of the page.

    Attributes:
        name: in addresses.
        title: on the page.
        kind: "grey", "signed" (per cent), "volume" (log2 of the Jacobian determinant; folds far below) or "labels"
            (indices into ``values``).
        data: ``(D, H, W)`` on the fixed grid.
        low, high: values at the ends of the colours.
        strip: still pictures.
        values: the labels that indices stand for.
        bar: its colours.
    """

    name: str
    title: str
    kind: str
    data: Array
    low: float
    high: float
    strip: Strip
    values: Sequence[int] = ()
    bar: ColourBar | None = None


@dataclass(frozen=True)
class VolumeSet:
    """All layers of a registration; the first one is below at first, the second one over it."""

    grid: Grid
    start_mm: tuple[float, float, float]
    layers: Sequence[VolumeLayer]

    def file(self, name: str, *, half: bool = False) -> bytes | None:
        """A layer as NIfTI: as it is, or packed at half the resolution in bytes; None when there is none so called."""
        layer = next((layer for layer in self.layers if layer.name == name), None)
        if layer is None:
            return None
        return _halved(layer, self.grid) if half else nifti_bytes(layer.data, self.grid.affine)


def volume_set(
    fixed: Volume,
    greys: Sequence[tuple[str, str, Array]],
    *,
    jacobian: npt.NDArray[np.floating] | None = None,
    labels: Sequence[tuple[str, str, Array]] = (),
    compare: bool = True,
) -> VolumeSet:
    """Make the layers.

    Args:
        fixed: the image below; its foreground sets frame and windows of the still pictures.
        greys: name, title and array of the images over it, the most telling one first.
        jacobian: determinant per voxel.
        labels: name, title and array of label maps.
        compare: whether the first of ``greys`` is aligned with ``fixed`` and differences mean something.
    """
    sections = Sections(fixed)
    window = figures.grey_window(fixed.data)
    layers = [_grey("fixed" if compare else "warped", "Fixed" if compare else "Warped", fixed.data, sections)]
    layers += [_grey(name, title, array, sections) for name, title, array in greys]
    if compare and greys:
        match = figures.Matcher(fixed.data, greys[0][2], sections.subject.threshold)
        rows, scale = figures.differences(sections, fixed.data, [a for _, _, a in greys], match, window)
        ticks = ((0.0, f"−{scale.high:g} %"), (0.5, "0"), (1.0, f"+{scale.high:g} %"))
        bar = colour_bar(scale.table, label="moving darker to moving brighter", ticks=ticks)
        for (name, title, array), pictures in zip(greys, rows, strict=True):
            percent = (match(finite(array)) - finite(fixed.data)) * np.float32(100 / (window[1] - window[0]))
            what = f"{title} minus fixed"
            layers.append(
                VolumeLayer(
                    f"{name}-difference", what, "signed", percent, scale.low, scale.high,
                    _strip(what, pictures, sections), bar=bar,
                )
            )  # fmt: skip
    if jacobian is not None:
        layers.append(_volume_change(jacobian, fixed.data, sections))
    layers += [_labels(name, title, array, sections, fixed.data, window) for name, title, array in labels]
    section = {s.axis: s.index for s in sections.items}
    voxel = np.zeros(3)
    for world, (axis, sign) in enumerate(zip(sections.order, sections.signs, strict=True)):
        voxel[axis] = section[world] if sign > 0 else fixed.grid.shape[axis] - 1 - section[world]
    x, y, z = fixed.grid.to_mm(voxel).tolist()
    return VolumeSet(fixed.grid, (x, y, z), layers)


def volume_page(volumes: VolumeSet, *, title: str, notes: Sequence[str] = (), inline: bool = False) -> str:
    """The page as text.

    Args:
        volumes: what to show.
        title: heading.
        notes: what a person should know, such as a layer that is missing.
        inline: put the volumes into the page, at half the resolution; else they are asked for at ``volumes/NAME.nii``.
    """
    told = {
        "start": volumes.start_mm,
        "layers": [
            {
                "name": layer.name, "title": layer.title, "kind": layer.kind, "low": layer.low, "high": layer.high,
                "values": list(layer.values), "table": _base64(_table(layer).tobytes()),
                "data": _base64(volumes.file(layer.name, half=True) or b"") if inline else "",
                "address": "" if inline else f"volumes/{layer.name}.nii",
            }
            for layer in volumes.layers
        ],
    }  # fmt: skip
    return render(
        "volumes.html.j2",
        heading=title,
        notes=notes,
        inline=inline,
        layers=volumes.layers,
        stills=Figure("stills", "Still pictures", "", [layer.strip for layer in volumes.layers]),
        told=told,
        script=resources.files("medwave.reports").joinpath("vendor", "niivue.min.js").read_text(encoding="ascii"),
    )


def write_volume_page(path: Path, volumes: VolumeSet, *, title: str, notes: Sequence[str] = ()) -> Path:
    """Write the page with its volumes in it.

    Raises:
        OutputError: when it cannot be written.
    """
    write_text(path, volume_page(volumes, title=title, notes=notes, inline=True))
    return path


def _grey(name: str, title: str, array: Array, sections: Sections) -> VolumeLayer:
    window = figures.grey_window(array)
    strip = _strip(title, figures.anatomy(sections, array, window), sections)
    return VolumeLayer(name, title, "grey", finite(array).astype(np.float32, copy=False), *window, strip)


def _volume_change(determinant: npt.NDArray[np.floating], fixed: Array, sections: Sections) -> VolumeLayer:
    pictures, scale, _ = figures.jacobian(sections, fixed, determinant)
    known = np.nan_to_num(determinant, nan=1.0, posinf=2.0**_MOST_DOUBLINGS, neginf=0.0).astype(np.float32)
    change = np.log2(np.clip(known, 2.0**-_MOST_DOUBLINGS, 2.0**_MOST_DOUBLINGS))
    change[known <= 0] = _FOLDED
    ratio = f"{2.0**scale.high:.3g}"
    bar = colour_bar(
        colours.DIVERGING_DARK, label="volume ratio, moving to fixed; folds are magenta",
        ticks=((0.0, f"1/{ratio}"), (0.5, "1"), (1.0, ratio)),
    )  # fmt: skip
    strip = _strip("Change of volume", pictures, sections)
    return VolumeLayer("jacobian", "Change of volume", "volume", change, scale.low, scale.high, strip, bar=bar)


def _labels(
    name: str, title: str, array: Array, sections: Sections, fixed: Array, window: figures.Window
) -> VolumeLayer:  # fmt: skip
    values, index = np.unique(array, return_inverse=True)
    if values[0] != 0:
        values, index = np.insert(values, 0, 0), index + 1
    index = np.where(index > 0, (index - 1) % LABELS_APART + 1, 0).reshape(array.shape).astype(np.uint8)
    pictures = figures.label_contours(sections, fixed, array, array, window)
    shown = values.tolist() if len(values) <= LABELS_APART + 1 else []
    return VolumeLayer(name, title, "labels", index, 0.0, 255.0, _strip(title, pictures, sections), values=shown)


def _strip(title: str, pictures: Sequence[UInt8Array], sections: Sections) -> Strip:
    return Strip(
        title,
        [
            picture(rgb, alt=f"{title}; {section.title}", caption=section.title)
            for rgb, section in zip(pictures, sections.items, strict=True)
        ],
    )


def _table(layer: VolumeLayer) -> UInt8Array:
    """256 colours, uint8 ``(256, 3)``."""
    if layer.kind == "grey":
        return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    if layer.kind == "labels":
        return colours.distinct(256)
    table = colours.DIVERGING_DARK.copy()
    if layer.kind == "volume":
        table[0] = colours.FOLD
    return table


def _halved(layer: VolumeLayer, grid: Grid) -> bytes:
    """Means of 2x2x2 voxels (of labels the first voxel) in 256 levels."""
    affine = np.array(grid.affine)
    steps = np.array([2 if n > 1 else 1 for n in grid.shape])
    affine[:3, 3] = grid.to_mm((steps - 1) / 2)
    affine[:3, :3] = affine[:3, :3] * steps
    if layer.kind == "labels":
        return nifti_bytes(layer.data[tuple(slice(None, None, n) for n in steps)], affine, packed=True)
    low, high = layer.low, layer.high
    if layer.kind == "volume":  # the first level is left to folds
        low -= (high - low) / 254
    coarse = _mean(layer.data, steps) if layer.kind != "volume" else _furthest(layer.data, steps)
    levels = np.rint(np.clip((coarse - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)
    if layer.kind == "volume":
        levels[(coarse > _FOLDED + 0.5) & (levels == 0)] = 1
    return nifti_bytes(levels, affine, slope=(high - low) / 255, intercept=low, packed=True)


def _mean(data: Array, steps: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    parts = _blocks(data.astype(np.float32, copy=False), steps)
    return np.asarray(sum(parts[1:], parts[0].copy()) / len(parts), dtype=np.float32)


def _furthest(data: Array, steps: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """The mean, but a fold wherever one of the voxels is folded: none may vanish."""
    mean = _mean(data, steps)
    for part in _blocks(data.astype(np.float32, copy=False), steps):
        mean[part < _FOLDED + 0.5] = _FOLDED
    return mean


def _blocks(data: npt.NDArray[np.float32], steps: npt.NDArray[np.integer]) -> list[npt.NDArray[np.float32]]:
    """The voxels of each block, one array for each place in a block; an odd last voxel stands for two."""
    even = np.pad(data, [(0, n % s) for n, s in zip(data.shape, steps, strict=True)], mode="edge")
    places = np.ndindex(*(int(s) for s in steps))
    return [even[tuple(slice(o, None, int(s)) for o, s in zip(place, steps, strict=True))] for place in places]


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
