"""SWC files: one node of a neuron per line (Cannon et al. 1998, doi 10.1016/S0165-0270(98)00091-0), and ESWC.

Conventions
    Columns: id, type, x, y, z, radius, parent id; ESWC has more, which are kept. ``#`` begins a comment. A parent
    below 0 marks a root. The standard unit is micrometres, tracing programs also write voxels: the file does not say
    which, so :func:`write_swc` says it in a comment. Positions stay x y z (:class:`medwave.core.tree.Tree`).
    Whatever :func:`validate_swc` calls an error, :func:`read_swc` refuses; warnings it reads over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from medwave.core.errors import InputError
from medwave.core.files import StrPath, input_file, write_text
from medwave.core.tree import SOMA, Float64Array, Int64Array, Tree, nodes_without_root
from medwave.core.tree_walk import preorder

Severity = Literal["error", "warning"]
Units = Literal["voxels", "um"]

COLUMNS = ("id", "type", "x", "y", "z", "radius", "parent")
LAST_STANDARD_TYPE = 7
_OWN_COMMENTS = ("units:", "origin:", " ".join(COLUMNS))

CODES: dict[str, str] = {
    "empty": "a file has at least one node",
    "columns": "a node has seven columns or more",
    "not-a-number": "every column is a number",
    "not-whole": "id, type and parent are whole numbers",
    "not-finite": "positions and radii are finite",
    "radius-negative": "a radius is not negative",
    "id-duplicate": "ids are unique",
    "parent-self": "no node is its own parent",
    "parent-missing": "every parent is there",
    "cycle": "parents lead to a root",
    "no-root": "at least one node is a root",
    "many-roots": "a single tree has one root",
    "id-not-positive": "ids are 1 or more",
    "parent-after-child": "a parent comes before its children",
    "radius-zero": "a radius is more than 0 if the tree is to be drawn",
    "zero-length": "a node does not lie on its parent",
    "type-unknown": "types are 0 to 7",
    "type-change": "the type changes at forks and behind the soma only",
    "ragged-columns": "all nodes have the same number of columns",
    "outside-image": "nodes lie within the image",
}
"""Every rule that is checked, by the code of its finding."""

_WARNINGS = set(list(CODES)[list(CODES).index("id-not-positive") :])


class Finding(NamedTuple):
    """A broken rule.

    Attributes:
        code: key of :data:`CODES`.
        severity: ``"error"``: the file cannot be read; ``"warning"``: it can.
        line: number of the line, from 1; 0 for the file as a whole.
        message: what is wrong there, and what helps.
    """

    code: str
    severity: Severity
    line: int
    message: str


@dataclass
class _Scan:
    """What stands in a file: a row of numbers per node, the line each came from, and what is wrong with them."""

    lines: Int64Array
    rows: Float64Array
    comments: list[str]
    findings: list[Finding] = field(default_factory=list)

    def add(self, code: str, line: int, message: str) -> None:
        self.findings.append(Finding(code, "warning" if code in _WARNINGS else "error", line, message))

    def add_where(self, code: str, broken: np.ndarray, message: str) -> None:
        """One finding per broken row; ``{id}``, ``{parent}``... in the message are its columns."""
        for row in np.flatnonzero(broken):
            cells = {name: f"{value:.12g}" for name, value in zip(COLUMNS, self.rows[row], strict=False)}
            self.add(code, int(self.lines[row]), message.format(**cells))


def read_swc(path: StrPath) -> Tree:
    """Read an SWC or ESWC file; nodes keep their order, ids are replaced by it.

    Further columns become :attr:`Tree.extra`, named by a comment that lists all columns (as Vaa3D writes), else
    ``column_8``, ...; a line that lacks some gets zeros there.

    Raises:
        MissingFileError: when the file does not exist.
        InputError: with the first line that breaks a rule of :data:`CODES` whose breach is an error.
    """
    scan = _scan(path)
    errors = [finding for finding in scan.findings if finding.severity == "error"]
    if errors:
        first = min(errors, key=lambda finding: finding.line or np.inf)
        more = f" ({len(errors) - 1} more errors)" if len(errors) > 1 else ""
        place = f"{path}, line {first.line}" if first.line else f"{path}"
        raise InputError(f"{place}: {first.message}{more}")
    ids, extra = scan.rows[:, 0], scan.rows[:, 7:]
    return Tree(
        scan.rows[:, 2:5],
        scan.rows[:, 5],
        _parent_rows(ids, scan.rows[:, 6]),
        scan.rows[:, 1].astype(np.int64),
        extra,
        _extra_names(scan.comments, extra.shape[1]),
    )


def read_swc_comments(path: StrPath) -> tuple[str, ...]:
    """The comment lines of a file, without ``#`` and surrounding blanks, in order."""
    return tuple(text for text in (line.strip().lstrip("#").strip() for line in _text(path) if _is_comment(line)))


def read_swc_units(path: StrPath) -> Units | None:
    """The units that :func:`write_swc` noted in a file; None where nothing is said."""
    for comment in read_swc_comments(path):
        if comment.startswith("units:"):
            said = comment.removeprefix("units:").strip()
            return "voxels" if said == "voxels" else "um" if said == "um" else None
    return None


def validate_swc(
    path: StrPath,
    *,
    single_tree: bool = False,
    image_shape: tuple[int, int, int] | None = None,
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> list[Finding]:
    """Check a file against every rule of :data:`CODES`.

    Args:
        path: the file.
        single_tree: whether more than one root is an error.
        image_shape: ``(D, H, W)`` of the image in which the nodes are meant to lie.
        voxel_size: of the image along z, y, x in the unit of the nodes.

    Returns:
        The findings by line, those of the whole file first; none for a faultless file.

    Raises:
        MissingFileError: when the file does not exist.
    """
    scan = _scan(path)
    rows = scan.rows
    if len(rows):
        _check_order_and_shape(scan)
    roots = int((rows[:, 6] < 0).sum())
    if single_tree and roots > 1:
        scan.add("many-roots", 0, f"{roots} roots in what is to be one tree; join its pieces or keep the largest")
    if image_shape is not None:
        last = np.array(image_shape[::-1]) - 0.5  # a voxel reaches half its size beyond its centre
        places = rows[:, 2:5] / np.array(voxel_size[::-1])
        outside = ((places < -0.5) | (places > last)).any(axis=1)
        scan.add_where("outside-image", outside, "node {id} at ({x}, {y}, {z}) lies outside the image")
    return sorted(scan.findings, key=lambda finding: (finding.line, list(CODES).index(finding.code)))


def write_swc(
    path: StrPath, tree: Tree, *, header: Iterable[str] = (), units: Units = "voxels", origin: str | None = None
) -> None:
    """Write a tree, parents before children, ids from 1; with further columns it is an ESWC file.

    Comments state the units and where the origin lies. Numbers have six decimals at most.

    Args:
        path: file to write, whole or not at all.
        tree: any tree of at least one node; it is sorted depth-first if a parent comes after its child.
        header: further comment lines, without ``#``; those that this function writes itself are left out, so that
            the comments of one file can be handed to the next.
        units: unit of positions and radii.
        origin: what the comment says about the origin, by default the centre of the first voxel for voxels.

    Raises:
        InputError: when the tree is empty or the unit is unknown.
        OutputError: when the file cannot be written.
    """
    if units not in ("voxels", "um"):
        raise InputError(f'units of an SWC file are "voxels" or "um", got {units!r}')
    if not len(tree):
        raise InputError(f"{path}: a tree without nodes makes no SWC file")
    if (tree.parent >= np.arange(len(tree))).any():
        tree = tree.select(preorder(tree.parent).order)
    where = origin or ("centre of the first voxel" if units == "voxels" else "centre of the first voxel of the image")
    notes = [f"units: {units}", f"origin: {where}; x y z run along columns, rows and planes"]
    notes += [line for text in header for line in (text.splitlines() or [""]) if not line.startswith(_OWN_COMMENTS)]
    lines = [f"# {note}".rstrip() for note in notes]
    lines.append("# " + " ".join((*COLUMNS, *(name.replace(" ", "_") for name in tree.extra_names))))
    numbers = np.column_stack([tree.positions, tree.radius, tree.extra]).tolist()
    parents, kinds = np.where(tree.parent < 0, -1, tree.parent + 1).tolist(), tree.kind.tolist()
    for node, (kind, parent, values) in enumerate(zip(kinds, parents, numbers, strict=True), start=1):
        cells = [_decimal(value) for value in values]
        lines.append(" ".join([str(node), str(kind), *cells[:4], str(parent), *cells[4:]]))
    write_text(path, "\n".join(lines) + "\n")


def _decimal(value: float) -> str:
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


# --- scanning --------------------------------------------------------------------------------------------------------


def _text(path: StrPath) -> list[str]:
    content = input_file(path).read_bytes()
    if b"\0" in content:
        raise InputError(f"{path}: not an SWC file but a binary one; an SWC file is plain text")
    return content.decode("utf-8-sig", errors="replace").splitlines()


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _scan(path: StrPath) -> _Scan:
    """Read a file and find every error; lines that are no rows of numbers are left out of the rows."""
    scan = _Scan(np.zeros(0, dtype=np.int64), np.zeros((0, 7)), [])
    lines, rows = [], []
    for number, line in enumerate(_text(path), start=1):
        if _is_comment(line):
            scan.comments.append(line)
            continue
        cells = line.partition("#")[0].split()
        if not cells:
            continue
        if len(cells) < 7:
            scan.add("columns", number, f"seven columns are needed ({' '.join(COLUMNS)}), got {len(cells)}")
            continue
        try:
            rows.append([float(cell) for cell in cells])
        except ValueError:
            wrong = next(cell for cell in cells if not _is_number(cell))
            scan.add("not-a-number", number, f"columns are numbers separated by blanks, got {wrong!r}")
            continue
        lines.append(number)
    if rows:
        width = max(map(len, rows))
        for number, row in zip(lines, rows, strict=True):
            if len(row) < width:
                scan.add(
                    "ragged-columns", number, f"{len(row)} columns where other nodes have {width}; zeros are taken"
                )
        scan.lines = np.array(lines)
        scan.rows = np.array([row + [0.0] * (width - len(row)) for row in rows])
        _check_values(scan)
        _check_parents(scan)
    elif not scan.findings:
        scan.add("empty", 0, "no node in the file; a node is a line of seven numbers")
    return scan


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _check_values(scan: _Scan) -> None:
    rows = scan.rows
    whole = rows[:, [0, 1, 6]]
    with np.errstate(invalid="ignore"):
        broken = ~np.isfinite(whole) | (whole != np.rint(whole)) | (np.abs(whole) > 2**53)
    scan.add_where(
        "not-whole",
        broken.any(axis=1),
        "id, type and parent are whole numbers, got id {id}, type {type}, parent {parent}",
    )
    finite = np.isfinite(rows[:, 2:6]).all(axis=1)
    scan.add_where(
        "not-finite", ~finite, "positions and radii are finite, got x {x}, y {y}, z {z}, radius {radius} at node {id}"
    )
    scan.add_where("radius-negative", rows[:, 5] < 0, "the radius of node {id} is {radius}; it must not be negative")


def _check_parents(scan: _Scan) -> None:
    ids, parents = scan.rows[:, 0], scan.rows[:, 6]
    first_of = np.unique(ids, return_index=True)[1]
    again = np.ones(len(ids), dtype=np.bool_)
    again[first_of] = False
    scan.add_where("id-duplicate", again, "id {id} came before; ids must be unique")
    child = parents >= 0
    self_made = child & (parents == ids)
    scan.add_where("parent-self", self_made, "node {id} is its own parent; a root has parent -1")
    missing = child & ~np.isin(parents, ids)
    scan.add_where("parent-missing", missing, "node {id} hangs on node {parent}, which is not in the file")
    if child.all():
        scan.add("no-root", 0, "no node is a root (parent -1)")
    if not again.any():
        # a self-made parent is reported once, as such, and not again as a circle
        above = np.where(missing | self_made, -1, _parent_rows(ids, np.where(missing, -1, parents)))
        on_cycle = np.zeros(len(ids), dtype=np.bool_)
        on_cycle[nodes_without_root(above)] = True
        scan.add_where("cycle", on_cycle, "the parents of node {id} run in a circle and reach no root")


def _parent_rows(ids: Float64Array, parents: Float64Array) -> Int64Array:
    """Row of every parent, -1 for roots; ids are unique and all parents are there."""
    order = np.argsort(ids, kind="stable")
    place = np.clip(np.searchsorted(ids[order], parents), 0, len(ids) - 1)
    return np.where(parents < 0, -1, order[place]).astype(np.int64)


def _check_order_and_shape(scan: _Scan) -> None:
    """The rules that a readable file may break."""
    rows = scan.rows
    scan.add_where("id-not-positive", rows[:, 0] < 1, "id {id} is below 1; some programs refuse it")
    scan.add_where("radius-zero", rows[:, 5] == 0, "the radius of node {id} is 0; it cannot be drawn")
    strange = (rows[:, 1] < 0) | (rows[:, 1] > LAST_STANDARD_TYPE)
    scan.add_where("type-unknown", strange, "type {type} of node {id} is not one of 0 to 7")
    present = (rows[:, 6] >= 0) & np.isin(rows[:, 6], rows[:, 0])
    above = _parent_rows(rows[:, 0], np.where(present, rows[:, 6], -1))
    scan.add_where(
        "parent-after-child",
        present & (above > np.arange(len(rows))),
        "node {id} comes before its parent {parent}; sorting helps",
    )
    children = np.bincount(above[present], minlength=len(rows))
    change = present & (children[above] == 1) & (rows[above, 1] != SOMA) & (rows[:, 1] != rows[above, 1])
    scan.add_where("type-change", change, "node {id} of type {type} continues another type; MorphIO refuses that")
    zero = present & (above != np.arange(len(rows))) & (rows[:, 2:5] == rows[above, 2:5]).all(axis=1)
    scan.add_where("zero-length", zero, "node {id} lies on its parent {parent}; dropping duplicates helps")


def _extra_names(comments: list[str], count: int) -> tuple[str, ...]:
    """Names of further columns from the last comment that has as many words as there are columns."""
    for comment in reversed(comments):
        words = comment.strip().lstrip("#").replace(",", " ").split()
        if len(words) == 7 + count and words[0].lower() in ("id", "n") and not any(map(_is_number, words)):
            return tuple(words[7:])
    return tuple(f"column_{8 + n}" for n in range(count))
