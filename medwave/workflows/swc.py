"""Check, repair and convert SWC files.

Voxels count from the centre of the first one, x y z; radii are in voxels of x, and follow the voxel size along x.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medwave.core.errors import InputError
from medwave.core.files import StrPath, check_output
from medwave.core.tree import Tree
from medwave.tracing import check_alignment, drop_duplicates, flip_y, join, one_type_per_branch, scale, sort_tree
from medwave.volumes import (
    Finding,
    LazyVolume,
    open_stack,
    read_swc,
    read_swc_comments,
    read_swc_units,
    validate_swc,
    write_swc,
)
from medwave.volumes.stack import Spacing
from medwave.workflows.options import SwcConvertOptions, SwcFixOptions
from medwave.workflows.tree_units import to_voxels

Warn = Callable[[str], None]


@dataclass(frozen=True)
class CheckedFile:
    """What is wrong with a file: findings by line, and what the image says about where the tree lies (or "")."""

    path: Path
    findings: tuple[Finding, ...]
    misplaced: str = ""

    @property
    def readable(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "path": str(self.path),
            "readable": self.readable,
            "findings": [finding._asdict() for finding in self.findings],
            "misplaced": self.misplaced,
        }


def check_swc(path: StrPath, *, single_tree: bool = False, image: StrPath | None = None) -> CheckedFile:
    """Check a file against every rule of :data:`medwave.volumes.swc.CODES`.

    Args:
        path: the file.
        single_tree: whether more than one root is an error.
        image: the volume on which the tree is meant to lie: nodes must lie inside it and on bright voxels. A tree is in
            its voxels unless its file says micrometres.

    Raises:
        MissingFileError: when a file does not exist.
        InputError: when the tree is in micrometres and the volume does not tell its voxel size.
        VolumeFormatError, GeometryError: when the volume is unusable.
    """
    if image is None:
        return CheckedFile(Path(path), tuple(validate_swc(path, single_tree=single_tree)))
    with open_stack(image) as volume:
        size = _voxel_size(path, volume)
        unit = size or (1.0, 1.0, 1.0)
        findings = validate_swc(path, single_tree=single_tree, image_shape=volume.shape, voxel_size=unit)
        found = CheckedFile(Path(path), tuple(findings))
        return replace(found, misplaced=_misplaced(read_swc(path), volume.read(), size)) if _placed(found) else found


def _voxel_size(path: StrPath, volume: LazyVolume) -> Spacing | None:
    """Voxel size of a volume along z, y, x in the unit of a tree; None for a tree in voxels."""
    if read_swc_units(path) != "um":
        return None
    if volume.spacing_um is None:
        raise InputError(
            f"{path}: is in micrometres, {volume.path} does not tell its voxel size; bring the tree to voxels first: "
            "medwave swc convert --units voxels --spacing z,y,x"
        )
    return volume.spacing_um


def _placed(found: CheckedFile) -> bool:
    return found.readable or {f.code for f in found.findings if f.severity == "error"} == {"many-roots"}


def _misplaced(tree: Tree, image: np.ndarray, size: Spacing | None) -> str:
    """What the image says against a tree; ``size`` as of :func:`_voxel_size`."""
    try:
        check = check_alignment(tree if size is None else to_voxels(tree, size, (0.0, 0.0, 0.0)), image)
    except InputError as error:
        return str(error)
    if check.aligned:
        return ""
    if check.best == "y":
        spacing = "" if size is None else f" --spacing {','.join(f'{s:g}' for s in size)}"
        return (
            "the tree lies on brighter voxels when y is counted from the other edge: "
            f"medwave swc convert --flip-y {image.shape[1]}{spacing}"
        )
    if check.best:
        return f"the tree lies on brighter voxels when mirrored along {' and '.join(check.best)}"
    return "the image is no brighter along the tree than beside it: check its units and its origin"


def fix_swc(
    source: StrPath,
    output: StrPath,
    *,
    options: SwcFixOptions | None = None,
    on_warning: Warn | None = None,
    **changes: Any,
) -> tuple[Tree, Tree]:
    """Join, re-root, sort and renumber a tree, drop duplicate nodes, give each branch one type, and write it.

    Args:
        source: the file; it must have no finding that is an error.
        output: the repaired file; comments and further columns are kept.
        options: what is done; single ones can be given by name.
        on_warning: told what a person should know; by default it becomes a Python warning.

    Returns:
        The tree before and after.

    Raises:
        MissingFileError, InputError, OutputError: when a file is unusable, or has no node of the given id.
    """
    options = replace(options or SwcFixOptions(), **changes)
    check_output(output, source)
    before = read_swc(source)
    tree = join(before, options.join)
    tree = drop_duplicates(sort_tree(tree, root=None if options.root is None else _node_of(source, options.root)))
    if options.one_type:
        tree = one_type_per_branch(tree)
    if options.radius > 0:
        radius = np.where(tree.radius == 0, options.radius, tree.radius)
        tree = Tree(tree.positions, radius, tree.parent, tree.kind, tree.extra, tree.extra_names)
    units = options.units if options.units != "auto" else read_swc_units(source)
    if units is None:
        _warn(on_warning, f"{source} does not say its units: voxels are noted; --units um says otherwise")
    write_swc(output, tree, header=read_swc_comments(source), units=units or "voxels")
    return before, tree


def convert_swc(
    source: StrPath,
    output: StrPath,
    *,
    options: SwcConvertOptions,
    on_warning: Warn | None = None,
) -> Tree:
    """Bring a tree from voxels to micrometres or back, or count y from the other edge, and write it.

    Args:
        source: the file.
        output: the converted file; comments and further columns are kept.
        options: to what.
        on_warning: told what a person should know; by default it becomes a Python warning.

    Raises:
        MissingFileError, InputError, OutputError: when a file is unusable, or is in the wanted units already.
    """
    check_output(output, source)
    tree, said = read_swc(source), read_swc_units(source)
    if said is not None and said == options.units and options.flip_y is None:
        raise InputError(f"{source}: is in {said} already; nothing is to be converted")
    other = {"um": "voxels", "voxels": "um", "keep": "voxels"}[options.units]
    if said is None:
        _warn(on_warning, f"{source} does not say its units: taken to be in {other}")
    have = said or other
    want = have if options.units == "keep" else options.units
    if options.flip_y is not None and have == "um" and options.spacing is None:
        raise InputError(f"{source}: is in um, rows are voxels: give --spacing z,y,x too")
    size = None if options.spacing is None else np.array(options.spacing[::-1])
    if size is not None and have == "um":
        tree = scale(tree, 1 / size, radius_factor=1 / size[0])
    if options.flip_y is not None:
        tree = flip_y(tree, options.flip_y)
    if size is not None and want == "um":
        tree = scale(tree, size, radius_factor=size[0])
    write_swc(output, tree, header=read_swc_comments(source), units=want)
    return tree


def _node_of(path: StrPath, node_id: int) -> int:
    """Index of the node with an id, of a file without errors."""
    rows = Path(path).read_bytes().decode("utf-8-sig", errors="replace").splitlines()
    ids = [float(cells[0]) for cells in (row.partition("#")[0].split() for row in rows) if cells]
    if node_id not in ids:
        raise InputError(f"{path}: has no node {node_id}; --root takes the id of one that is there")
    return ids.index(node_id)


def _warn(on_warning: Warn | None, text: str) -> None:
    if on_warning is None:
        warnings.warn(text, stacklevel=3)
    else:
        on_warning(text)
