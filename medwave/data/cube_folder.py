"""A folder of training cubes: what is written into it, and the table that says what each cube is.

::

    cubes.csv                          one row per cube, see CubeRow
    dataset.json                       options, counts, statistics of the training cubes
    volumes/NAME/tree.swc              the tree in voxels of the prepared volume
    volumes/NAME/0000_image.tif        a cube in the type of its file; beside it _label.tif (1 fibre, 0 background,
                                       255 unknown) and _lines.tif (1 on centre lines)
    volumes/NAME/volume.json           written last: the volume is complete

Cubes are TIFF with Deflate: lossless (training on JPEG teaches a network the artefacts of JPEG), in the bit depth of
the microscope, small where the background is dark, and open in Fiji and napari as they are. A file each, because a
training run picks cubes at random, and because an interrupted run then loses one at most.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from medwave.core.errors import InputError, MissingFileError
from medwave.core.files import StrPath, atomic_path, write_json, write_text
from medwave.core.tree import Tree
from medwave.cubes import Box, SampledCube
from medwave.tracing import crop
from medwave.transforms import draw_centre_lines
from medwave.transforms.microscopy import IntensityScale
from medwave.transforms.neuron_labels import FIBRE, IGNORE
from medwave.volumes import write_swc

SPLITS = ("train", "test")
PARTS = ("image", "label", "lines")


@dataclass(frozen=True)
class CubeRow:
    """What the table says of a cube.

    Attributes:
        volume: name of the volume it was cut from.
        number: of the cube in its volume.
        neuron: the neuron that the volume shows; volumes of one neuron lie on one side of the split.
        split: ``"train"`` or ``"test"``; empty until all volumes are there.
        group: ``"any"`` or ``"fibre"``, see :mod:`medwave.cubes.sampling`.
        z, y, x: its first voxel in the prepared volume.
        fibre_share: of its known voxels.
        known_share: of all its voxels.
        mean, sd: of its image as a share of the range of its type.
        center, width: intensity scale of the whole volume (:class:`medwave.transforms.microscopy.IntensityScale`).
    """

    volume: str
    number: int
    neuron: str
    split: str
    group: str
    z: int
    y: int
    x: int
    fibre_share: float
    known_share: float
    mean: float
    sd: float
    center: float
    width: float

    def path(self, folder: StrPath, part: str) -> Path:
        """The file of one of :data:`PARTS`."""
        return Path(folder) / "volumes" / self.volume / f"{self.number:04d}_{part}.tif"


def split_by_neuron(neurons: Iterable[str], *, test_every: int = 4, test: Sequence[str] = ()) -> dict[str, str]:
    """Which side each neuron is on: never a part of one on either.

    Args:
        neurons: names, in any order and number.
        test_every: in the order of their names, each neuron of this rank is for testing (4: the 4th, 8th, ...).
        test: names of those that are for testing instead.

    Raises:
        InputError: when ``test_every`` is below 2 or a named neuron is not there.
    """
    names = sorted(set(neurons))
    missing = sorted(set(test) - set(names))
    if missing or test_every < 2:
        raise InputError(
            f"the split names neurons that are there and takes every 2nd or rarer for testing; got {test_every} and "
            f"{', '.join(missing) or 'known names'}"
        )
    chosen = set(test) or set(names[test_every - 1 :: test_every])
    return {name: "test" if name in chosen else "train" for name in names}


def write_volume(
    folder: StrPath,
    name: str,
    neuron: str,
    *,
    image: npt.NDArray[np.generic],
    tree: Tree,
    labels: npt.NDArray[np.uint8],
    cubes: Sequence[SampledCube],
    key: Mapping[str, Any],
) -> list[CubeRow]:
    """Write all cubes of a volume; when this returns the volume is complete.

    Args:
        folder: of the data set.
        name: of the volume.
        neuron: that it shows.
        image, labels: the prepared volume ``(z, y, x)``.
        tree: in its voxels; what lies outside is cut off.
        cubes: where to cut.
        key: what the cubes follow from; :func:`finished_volume` compares it.

    Raises:
        OutputError: when a file cannot be written.
    """
    place = Path(folder) / "volumes" / name
    place.mkdir(parents=True, exist_ok=True)
    inside = crop(tree, (0, 0, 0), np.array(image.shape[::-1]) - 1)
    write_swc(place / "tree.swc", inside, header=[f"{name}, cut into training cubes"], units="voxels")
    lines = draw_centre_lines(tree, image.shape).astype(np.uint8)
    scale = IntensityScale.of(image)
    top = type_range(image.dtype)
    rows = []
    for number, (box, group) in enumerate(cubes):
        parts = [cut(image, box), cut(labels, box, fill=IGNORE), cut(lines, box, fill=0)]
        known = parts[1] != IGNORE
        row = CubeRow(
            name, number, neuron, "", group, *box.start,
            fibre_share=float((parts[1] == FIBRE).sum() / max(1, known.sum())), known_share=float(known.mean()),
            mean=float(parts[0].mean(dtype=np.float64) / top), sd=float(parts[0].std(dtype=np.float64) / top),
            center=scale.center, width=scale.width,
        )  # fmt: skip
        rows.append(row)
        for part, voxels in zip(PARTS, parts, strict=True):
            with atomic_path(row.path(folder, part)) as partial:
                tifffile.imwrite(partial, voxels, compression="zlib", metadata={"axes": "ZYX"})
    write_json(place / "volume.json", {"key": key, "cubes": [asdict(row) for row in rows]})
    return rows


def finished_volume(folder: StrPath, name: str, key: Mapping[str, Any]) -> list[CubeRow] | None:
    """The rows of a volume that an earlier run completed, or None if there is none, or one that lost a file since.

    Raises:
        InputError: when the volume was made from something else.
    """
    path = Path(folder) / "volumes" / name / "volume.json"
    if not path.exists():
        return None
    made = json.loads(path.read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(key))
    if made["key"] != wanted:
        other = sorted(k for k in {*made["key"], *wanted} if made["key"].get(k) != wanted.get(k))
        raise InputError(f"{path}: was made with another {', '.join(other)}; write into another folder, or remove it")
    rows = [CubeRow(**row) for row in made["cubes"]]
    files = [path.with_name("tree.swc"), *(row.path(folder, part) for row in rows for part in PARTS)]
    return rows if all(file.exists() for file in files) else None


def write_table(
    folder: StrPath, rows: Sequence[CubeRow], split: Mapping[str, str], options: Mapping[str, Any]
) -> list[CubeRow]:
    """Write ``cubes.csv`` and ``dataset.json``, with the side of each cube.

    Args:
        folder: of the data set.
        rows: of all volumes.
        split: neuron -> side.
        options: for ``dataset.json``.

    Raises:
        OutputError: when a file cannot be written.
    """
    placed = [CubeRow(**{**asdict(row), "split": split[row.neuron]}) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(CubeRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in placed)
    write_text(Path(folder) / "cubes.csv", text.getvalue())
    sides = {side: [row for row in placed if row.split == side] for side in SPLITS}
    about = {
        "options": options,
        "cubes": {side: len(found) for side, found in sides.items()},
        "neurons": {side: sorted({row.neuron for row in found}) for side, found in sides.items()},
        "statistics_of_training_cubes": statistics(sides["train"]),
    }
    write_json(Path(folder) / "dataset.json", about)
    return placed


def statistics(rows: Sequence[CubeRow]) -> dict[str, float]:
    """Mean and deviation of the images of cubes, as shares of the range of their type.

    ``mean_of_means`` and ``mean_of_sds`` are what the published constants are (0.0297 and 0.0422); ``pooled_sd`` is
    the deviation of all voxels together, which is larger.
    """
    if not rows:
        return {}
    means, sds = np.array([row.mean for row in rows]), np.array([row.sd for row in rows])
    pooled = math.sqrt(float((sds**2 + means**2).mean() - means.mean() ** 2))
    return {"mean_of_means": float(means.mean()), "mean_of_sds": float(sds.mean()), "pooled_sd": pooled}


def read_table(folder: StrPath) -> list[CubeRow]:
    """The rows of ``cubes.csv``.

    Raises:
        MissingFileError: when the folder has no table.
        InputError: when a row is damaged.
    """
    path = Path(folder) / "cubes.csv"
    if not path.is_file():
        raise MissingFileError(f"{path}: no such table; name a folder that data_prep/make_neucuda.py has finished")
    kinds = {"int": int, "float": float, "str": str}
    rows = []
    with path.open(encoding="utf-8", newline="") as stream:
        for line, cells in enumerate(csv.DictReader(stream), start=2):
            try:
                rows.append(CubeRow(**{f.name: kinds[str(f.type)](cells[f.name]) for f in fields(CubeRow)}))
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{path}, line {line}: not a row of a table of cubes ({error}); make it again"
                ) from None
    return rows


def cut(volume: npt.NDArray[np.generic], box: Box, *, fill: int | None = None) -> npt.NDArray[np.generic]:
    """A box of a volume; beyond its end the border goes on, or stands ``fill``."""
    inside = volume[tuple(slice(a, min(b, n)) for a, b, n in zip(box.start, box.stop, volume.shape, strict=True))]
    beyond = [(0, wanted - there) for wanted, there in zip(box.shape, inside.shape, strict=True)]
    if fill is None:
        return np.pad(inside, beyond, mode="edge")
    return np.pad(inside, beyond, constant_values=fill)


def type_range(dtype: np.dtype[np.generic]) -> float:
    """The largest value of an integer type; 1 for floats."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
