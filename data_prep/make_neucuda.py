"""Cut traced neurons into labelled training cubes.

    python data_prep/make_neucuda.py FOLDER -o CUBES          # FOLDER: X.swc beside X.tif, X.v3dpbd, X.ome.zarr ...
    python data_prep/make_neucuda.py neurons.csv -o CUBES --radius-uncertainty 0.25

A table has the columns ``name``, ``image``, ``swc`` (relative to it), and where wanted ``neuron`` (volumes of one
neuron lie on one side of the split; by itself the name), ``clean`` (boxes ``z0:z1,y0:y1,x0:x1`` joined by ``;``, -1 to
the end, in voxels of the image file, in which every fibre is annotated; the rest is marked unknown), ``noise`` and
``y_origin`` in place of the options. What is left out of the table is left out of the data set.

Each volume is cropped to its tree, made smaller if an axis is longer than ``--longest``, labelled by exact round cones,
made noisy if wanted, and cut into cubes anywhere and with fibre (``medwave.cubes.sampling``). CUBES then holds what
``medwave.data.cube_folder`` describes, for ``medwave.data.NeuronCubes``. Started again it goes on with the first
volume that is not complete; the same seed gives the same cubes, whatever other volumes there are.

Method: Li & Shen, Bioinformatics 38:809 (2022), doi 10.1093/bioinformatics/btab716.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medwave.core.errors import InputError, MedwaveError, MissingFileError
from medwave.core.provenance import fingerprint
from medwave.core.tree import Tree
from medwave.cubes import sample_cubes
from medwave.data.cube_folder import CubeRow, finished_volume, split_by_neuron, write_table, write_volume
from medwave.tracing import check_alignment, flip_y, scale, translate
from medwave.transforms import (
    TracedImage,
    crop_box,
    fibre_labels,
    made_smaller,
    parse_boxes,
    smaller_shape,
    with_noise,
)
from medwave.volumes import LazyVolume, open_stack, read_swc, read_swc_units
from medwave.volumes.open import is_stack
from medwave.workflows.batch import read_table

Slices = tuple[slice, slice, slice]
COLUMNS = ("name", "image", "swc", "neuron", "clean", "noise", "y_origin")
"""Of a table; the first three are needed."""


@dataclass(frozen=True)
class Source:
    """One traced volume."""

    name: str
    neuron: str
    image: Path
    swc: Path
    clean: str
    noise: float
    y_origin: str


def main() -> None:
    options = parse()
    try:
        failed = make(options)
    except MedwaveError as error:
        raise SystemExit(f"make_neucuda: {error}") from None
    if failed:
        raise SystemExit(f"make_neucuda: {len(failed)} volumes are missing from the cubes: {', '.join(failed)}")


def make(options: argparse.Namespace) -> list[str]:
    """All volumes, then the table. Returns the names of those that could not be used."""
    sources = read_sources(options)
    split = split_by_neuron((s.neuron for s in sources), test_every=options.test_every, test=options.test)
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[CubeRow] = []
    failed = []
    for source in sources:
        try:
            found, said = volume_cubes(source, options)
        except MedwaveError as error:
            failed.append(source.name)
            print(f"{source.name}: left out: {error}", file=sys.stderr)
            continue
        rows += found
        print(f"{source.name}: {said}, {len(found)} cubes to {split[source.neuron]} with", flush=True)
    if not rows:
        raise InputError("no volume could be used")
    write_table(options.output, rows, split, {**recipe(options), "test_every": options.test_every, "left_out": failed})
    return failed


def volume_cubes(source: Source, options: argparse.Namespace) -> tuple[list[CubeRow], str]:
    """The cubes of one volume, made now or before."""
    for path in (source.image, source.swc):
        if not path.exists():
            raise MissingFileError(f"{path}: no such file or folder; correct the table")
    key = {
        **recipe(options), "image": fingerprint(source.image), "swc": fingerprint(source.swc),
        "neuron": source.neuron, "clean": source.clean, "noise": source.noise, "y_origin": source.y_origin,
    }  # fmt: skip
    done = finished_volume(options.output, source.name, key)
    if done is not None:
        return done, "complete"
    seed = [options.seed, *source.name.encode()]
    traced, clean, said = prepare(source, options)
    labels = fibre_labels(
        traced.tree, traced.image.shape, spacing=traced.spacing, slack=options.slack,
        unknown_radius=options.unknown_radius, radius_uncertainty=options.radius_uncertainty, clean=clean,
    )  # fmt: skip
    traced = with_noise(traced, source.noise, seed=seed) if source.noise > 0 else traced
    cubes = sample_cubes(labels == 1, labels != 255, size=options.size, seed=seed)
    rows = write_volume(
        options.output, source.name, source.neuron, image=traced.image, tree=traced.tree, labels=labels,
        cubes=cubes, key=key,
    )  # fmt: skip
    return rows, f"{' x '.join(map(str, traced.image.shape))} voxels, {said}"


def prepare(source: Source, options: argparse.Namespace) -> tuple[TracedImage, list[Slices] | None, str]:
    """Image and tree, cropped and made smaller; the clean boxes on that grid; in words where y counts from."""
    with open_stack(source.image, spacing_um=options.spacing) as volume:
        tree, said = placed(source, volume, in_voxels(source, volume))
        box = crop_box(tree, volume.shape) if options.crop else tuple(slice(0, n) for n in volume.shape)
        z, y, x = volume.spacing_um or (1.0, 1.0, 1.0)
        moved = translate(tree, [-box[2].start, -box[1].start, -box[0].start])
        traced = TracedImage(volume.read(box), moved, (z / x, y / x, 1.0))
        whole = volume.shape
    shape = smaller_shape(traced.image.shape, longest=options.longest)
    boxes = parse_boxes(source.clean)
    factors = [new / old for new, old in zip(shape, traced.image.shape, strict=True)]
    clean = [moved_box(each, box, whole, factors, shape) for each in boxes]
    return made_smaller(traced, shape), clean if boxes else None, said


def in_voxels(source: Source, volume: LazyVolume) -> Tree:
    """The tree in voxels of its image, radii in voxels of x."""
    tree = read_swc(source.swc)
    if read_swc_units(source.swc) != "um":
        return tree
    if volume.spacing_um is None:
        raise InputError(f"{source.swc}: is in um and {source.image} tells no voxel size; give --spacing z,y,x")
    z, y, x = volume.spacing_um
    return scale(tree, [1 / x, 1 / y, 1 / z], radius_factor=1 / x)


def placed(source: Source, volume: LazyVolume, tree: Tree) -> tuple[Tree, str]:
    """The tree with y counted from the top, and in words what was found.

    Raises:
        InputError: when the tree is to be placed by its image and does not lie on bright voxels either way.
    """
    height = volume.shape[1]
    if source.y_origin != "auto":
        return (flip_y(tree, height) if source.y_origin == "bottom" else tree), f"y from the {source.y_origin} as told"
    image = volume.read()
    found = check_alignment(tree, image)
    said = "y from the top by its image"
    if found.best == "y":
        tree, said = flip_y(tree, height), "y from the bottom by its image"
        found = check_alignment(tree, image)
    if not found.aligned:
        raise InputError(
            f"{source.swc}: does not lie on the bright voxels of {source.image}, whichever way y counts; repair it, "
            "or take it as it is with y_origin top"
        )
    return tree, said


def moved_box(
    box: Slices, crop_to: Slices, whole: tuple[int, ...], factors: list[float], shape: tuple[int, ...]
) -> Slices:
    """A clean box of the file on the prepared grid: the voxels that lie wholly within it."""
    sides = []
    for side, kept, n, f, length in zip(box, crop_to, whole, factors, shape, strict=True):
        stop = n if side.stop is None else min(side.stop, n)
        low, high = (side.start - kept.start) * f, (stop - kept.start) * f
        first = max(0, int(-(-low // 1)))
        sides.append(slice(first, max(first, min(length, int(high // 1)))))
    return sides[0], sides[1], sides[2]


def read_sources(options: argparse.Namespace) -> list[Source]:
    """The volumes that a table or a folder names.

    Raises:
        MissingFileError, InputError: when a file is not there, a column is missing, or two have one name.
    """
    given = options.source
    defaults = {"noise": options.noise, "y_origin": options.y_origin}
    found = folder_rows(given) if given.is_dir() else table_rows(given)
    beside = given if given.is_dir() else given.parent
    sources = [
        Source(
            name=row["name"],
            neuron=row.get("neuron") or row["name"],
            image=beside / row["image"],
            swc=beside / row["swc"],
            clean=row.get("clean") or "",
            noise=share(given, row.get("noise") or defaults["noise"]),
            y_origin=row.get("y_origin") or defaults["y_origin"],
        )
        for row in found
    ]
    names = [source.name for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    bad = [s.y_origin for s in sources if s.y_origin not in ("auto", "top", "bottom")]
    if not sources or twice or bad or any("/" in name or name.startswith(".") for name in names):
        raise InputError(
            f"{given}: names volumes, each by a plain name of its own, with y_origin auto, top or bottom; "
            f"got {len(sources)} volumes, twice {twice}, y_origin {bad}"
        )
    return sources


def share(table: Path, text: str | float) -> float:
    """A share that a table names.

    Raises:
        InputError: when it is no number.
    """
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{table}: noise is a share such as 0.1, got {text!r}; correct the table") from None


def folder_rows(folder: Path) -> list[dict[str, str]]:
    """Pairs of an SWC file and a volume of the same stem."""
    rows = []
    for swc in sorted(folder.glob("*.swc")):
        images = [p for p in sorted(folder.glob(f"{swc.stem}.*")) if p != swc and is_stack(p)]
        if len(images) != 1:
            raise MissingFileError(f"{swc}: needs one volume of its name beside it, found {len(images)}; use a table")
        rows.append({"name": swc.stem, "image": images[0].name, "swc": swc.name})
    return rows


def table_rows(table: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    return [row for _, row in read_table(table, COLUMNS[:3], COLUMNS)]


def recipe(options: argparse.Namespace) -> dict[str, Any]:
    """What cubes follow from, besides their files."""
    names = ("size", "seed", "slack", "unknown_radius", "radius_uncertainty", "crop", "longest", "spacing")
    return {name: getattr(options, name) for name in names}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("source", type=Path, help="folder of volumes and SWC files of the same names, or a CSV table")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the cubes")
    parser.add_argument("--size", type=whole_triple, default=(32, 128, 128), help="of a cube, z,y,x (32,128,128)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-every", type=int, default=4, help="each n-th neuron by name is for testing (4)")
    parser.add_argument("--test", type=lambda t: t.split(","), default=[], help="neurons for testing instead: a,b,c")
    parser.add_argument("--radius-uncertainty", type=float, default=0.0, help="share of radii that is unknown (0)")
    parser.add_argument("--slack", type=float, default=0.25, help="voxels added to radii (0.25)")
    parser.add_argument("--unknown-radius", type=float, default=1.0, help="what a radius of 0 is taken to be (1)")
    parser.add_argument("--noise", type=float, default=0.0, help="Gaussian noise as a share of the range, such as 0.1")
    parser.add_argument("--y-origin", default="auto", help="where y counts from: top, bottom, or auto: by the image")
    parser.add_argument("--spacing", type=triple, help="voxel size z,y,x in micrometres, in place of the files'")
    parser.add_argument("--longest", type=int, default=1024, help="make volumes smaller to this many voxels (1024)")
    parser.add_argument("--no-crop", dest="crop", action="store_false", help="keep what lies far from the tree")
    return parser.parse_args()


def triple(text: str) -> tuple[float, float, float]:
    z, y, x = (float(part) for part in text.split(","))
    return z, y, x


def whole_triple(text: str) -> tuple[int, int, int]:
    z, y, x = (int(part) for part in text.split(","))
    return z, y, x


if __name__ == "__main__":
    main()
