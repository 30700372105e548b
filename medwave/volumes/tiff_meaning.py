"""What the axes of a TIFF mean and how large its voxels are: metadata of ImageJ, OME and LSM, in (z, y, x) and
micrometres.

Conventions
    A role is one letter per stored axis: Z, Y, X, C (channel), or "." for an axis of length one that says nothing.
    ImageJ stores pixels per unit as the TIFF resolution and the step between slices as ``spacing``, which it leaves
    out when it is 1 unit; y and z may have units of their own. LSM stores metres. OME stores sizes with their units,
    micrometres when it names none.
    A plain TIFF resolution (dots per inch) is meant for printers and says nothing about voxels.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile

from medwave.core.errors import GeometryError, InputError
from medwave.volumes.stack import UM_PER_UNIT, Spacing, micrometres

UNNAMED = "QI"


def axis_roles(path: Path, axes: str, shape: tuple[int, ...], asked: str | None) -> str:
    """The role of each stored axis.

    Args:
        path: for messages.
        axes: tifffile's letters.
        shape: their lengths.
        asked: the roles as the caller declares them, or None.

    Raises:
        InputError: when the declared axes do not fit.
        GeometryError: when the file is 2-D, or has axes that mean neither space nor channel.
    """
    said = f"the file has axes {axes} of shape {shape}"
    if asked is not None:
        roles = asked.upper()
        fits = len(roles) == len(axes) and set(roles) <= set("ZYXC") and len(set(roles)) == len(roles)
        if not fits or "Z" not in roles or any(roles.find(a) != axes.find(a) for a in "YX"):
            raise InputError(
                f'{path}: axes name each axis once, Z and perhaps C before YX, such as "ZYX", got "{asked}"; {said}'
            )
        return roles
    roles = "".join(a if n > 1 or a in "YX" else "." for a, n in zip(axes, shape, strict=True))
    roles = roles.replace("S", "C") if "C" not in roles else roles
    unnamed = [a for a in roles if a in UNNAMED]
    if "Z" not in roles and len(unnamed) == 1:
        roles = roles.replace(unnamed[0], "Z")
    if set(roles) - set("ZYXC."):
        raise GeometryError(
            f'{path}: one volume is needed, {said}; if its slices are labelled wrongly, say axes="ZYX" (or "CZYX"), '
            "else extract one volume from it"
        )
    if "Z" not in roles:
        raise GeometryError(f"{path}: a 3-D volume is needed, {said}; stack its slices to a volume")
    return roles


def spacing_of(tif: tifffile.TiffFile, series: int) -> Spacing | None:
    """Voxel size along z, y, x in micrometres of one series, or None where the file does not tell all three."""
    if tif.is_ome and tif.ome_metadata:
        return _ome_spacing(tif.ome_metadata, series)
    if tif.is_imagej and tif.imagej_metadata:
        return _imagej_spacing(tif.imagej_metadata, tif.pages.first)
    if tif.is_lsm and tif.lsm_metadata:
        return _positive([tif.lsm_metadata.get(f"VoxelSize{a}", math.nan) for a in "ZYX"], [UM_PER_UNIT["m"]] * 3)
    return None


def _imagej_spacing(metadata: dict[str, Any], page: tifffile.TiffPage) -> Spacing | None:
    steps = [_per_pixel(page, tag) for tag in ("YResolution", "XResolution")]
    if None in steps:
        return None
    units = [str(metadata.get(name, metadata.get("unit", ""))) for name in ("zunit", "yunit", "unit")]
    scales = [micrometres(unit.replace("\\u00B5", "µ").replace("\\u00b5", "µ")) for unit in units]
    return _positive([abs(float(metadata.get("spacing", 1.0))), *steps], scales)


def _per_pixel(page: tifffile.TiffPage, tag: str) -> float | None:
    value = page.tags.valueof(tag)
    if not isinstance(value, tuple) or len(value) != 2 or not value[0]:
        return None
    return float(value[1] / value[0])


def _ome_spacing(xml: str, series: int) -> Spacing | None:
    try:
        pixels = _pixels(ElementTree.fromstring(xml), series)
    except ElementTree.ParseError:
        return None
    if pixels is None:
        return None
    try:
        sizes = [float(pixels.get(f"PhysicalSize{a}", "nan")) for a in "ZYX"]
    except ValueError:
        return None
    return _positive(sizes, [micrometres(pixels.get(f"PhysicalSize{a}Unit", "µm")) for a in "ZYX"])


def _pixels(root: ElementTree.Element, series: int) -> ElementTree.Element | None:
    """What is said about one series; images without data are none."""
    every = [e for e in root.iter() if _name(e) == "Pixels"]
    stored = [e for e in every if any(_name(child) == "TiffData" for child in e)] or every
    if len(stored) == 1:
        return stored[0]
    return stored[series] if series < len(stored) else None


def _name(element: ElementTree.Element) -> str:
    return element.tag.rsplit("}")[-1]


def _positive(sizes: list[Any], scales: list[float | None]) -> Spacing | None:
    if None in scales or not all(math.isfinite(s) and s > 0 for s in sizes):
        return None
    z, y, x = (float(size) * float(scale or 0) for size, scale in zip(sizes, scales, strict=True))
    return z, y, x
