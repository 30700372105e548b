"""Run what the pages of the documentation tell a reader to run, in the order of the page, on small samples.

    python docs/run_pages.py                              # all pages with commands, in a temporary folder
    python docs/run_pages.py how-to/neurons --folder DIR  # one of them, its results kept

Blocks marked ``sh`` and ``python`` are run; ``console`` and other kinds are for other programs or need a download.
Commands run in this process, so that packages are imported once. ``medwave demo`` is left out unless ``--demos`` is
given: it takes minutes. The samples have the file names of the pages: a coarse brain and deformed copies of it, a
small synthetic neuron, and small pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

DOCS = Path(__file__).parent
PAGES = (
    "get-started",
    "how-to/registration",
    "how-to/neurons",
    "how-to/pipelines",
    "how-to/image-networks",
    "concepts/fields",
    "concepts/cubes",
)
_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Step(NamedTuple):
    """A command or a block of Python, with its page and line."""

    place: str
    language: str
    text: str


def steps(page: str) -> list[Step]:
    """Commands (a step each) and blocks of Python of a page, in order."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        if match[1] == "python":
            found.append(Step(f"{page}.md:{line}", "python", match[2]))
            continue
        for number, command in enumerate(match[2].splitlines()):
            if command.strip():
                found.append(Step(f"{page}.md:{line + number}", "sh", command))
    return found


def run_step(step: Step, names: dict[str, object]) -> None:
    """Run a step in the working folder; ``names`` is what earlier blocks of the page defined.

    Raises:
        RuntimeError: when a command ends with another exit code than 0 (``swc check`` may say 1: it found something).
    """
    if step.language == "python":
        exec(compile(step.text, step.place, "exec"), names)
        return
    words = shlex.split(step.text, comments=True)
    if words[0] != "medwave":
        raise RuntimeError(f"{step.place}: only medwave is run here, not {words[0]}")
    code = command(words[1:])
    if code not in ((0, 1) if words[1:3] == ["swc", "check"] else (0,)):
        raise RuntimeError(f"{step.place}: exit code {code}: {step.text}")


def command(words: list[str]) -> int:
    """Exit code of a medwave command, run in this process."""
    from medwave.cli.app import main

    before, sys.argv = sys.argv, ["medwave", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def make_samples(folder: Path) -> None:
    """Write the files that the pages name."""
    _brains(folder)
    _neuron(folder)
    _pictures(folder)


def _pictures(folder: Path) -> None:
    from medwave.data import synthetic_boxes

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (24, 16, 16), dtype=np.uint8), np.arange(24) % 2
    np.savez(
        folder / "photos.npz", train_images=images, train_labels=labels, test_images=images[:8], test_labels=labels[:8]
    )
    synthetic_boxes(folder / "boxes.npz", (32, 32), {"train": 8, "val": 2, "test": 2}, seed=0, side_voxels=(8, 16))


def _brains(folder: Path) -> None:
    import shutil

    from scipy import ndimage

    from medwave.core.geometry import Grid, Volume
    from medwave.volumes import write_volume

    brain = _coarse_brain()
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    grid = Grid(brain.shape, affine)
    labels = np.where(brain > 0.1, 1 + np.digitize(brain, [0.45, 0.7]), 0).astype(np.int16)

    def write(name: str, data: np.ndarray) -> None:
        write_volume(folder / name, Volume(np.ascontiguousarray(data), grid))

    def moved(image: np.ndarray, seed: int, order: int = 1) -> np.ndarray:
        noise = np.random.default_rng(seed).standard_normal((3, *image.shape))
        bend = ndimage.gaussian_filter(noise, (0, 6, 6, 6))
        places = (
            np.indices(image.shape) + 2.0 * bend / np.abs(bend).max() + np.array([1.5, -1, 0.5])[:, None, None, None]
        )
        return ndimage.map_coordinates(image, places, order=order).astype(image.dtype)

    write("fixed.nii.gz", brain)
    write("moving.nii.gz", moved(brain, 1))
    write("third.nii.gz", moved(brain, 2))
    inverted = np.where(brain > 0.1, 1.2 - brain, 0).astype(np.float32)
    write("t2_fixed.nii.gz", inverted)
    write("t2_moving.nii.gz", moved(inverted, 1))
    write("fixed_labels.nii.gz", labels)
    write("moving_labels.nii.gz", moved(labels, 1, order=0))
    write("brain_mask.nii.gz", (brain > 0.1).astype(np.uint8))
    lesion = np.zeros(brain.shape, np.uint8)
    lesion[20:24, 26:30, 20:24] = 1
    write("lesion_moving.nii.gz", lesion)
    (folder / "electrodes.csv").write_text("x,y,z,name\n80,100,90,A1\n84,100,90,A2\n", encoding="utf-8")
    (folder / "pairs.csv").write_text(
        "fixed,moving\nfixed.nii.gz,moving.nii.gz\nfixed.nii.gz,third.nii.gz\n", encoding="utf-8"
    )
    (folder / "images").mkdir()
    for name in ("moving", "third"):
        shutil.copy(folder / f"{name}.nii.gz", folder / "images")


def _coarse_brain() -> np.ndarray:
    """The MNI152 template that nilearn carries, means of 4 mm, from 0 to 1."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nilearn announces removals in its own dependencies at import
        from nilearn import datasets

        image = datasets.load_mni152_template(resolution=1).get_fdata(dtype=np.float32)
    part = image[: image.shape[0] // 4 * 4, : image.shape[1] // 4 * 4, : image.shape[2] // 4 * 4]
    sizes = [number for n in part.shape for number in (n // 4, 4)]
    coarse = part.reshape(sizes).mean(axis=(1, 3, 5))
    return (coarse / coarse.max()).astype(np.float32)


def _neuron(folder: Path) -> None:
    import tifffile

    from medwave.transforms import Growth, Microscope, grow_tree, render_neuron
    from medwave.volumes import create_ome_zarr, write_swc, write_v3draw

    shape = (32, 96, 96)
    growth = Growth(stems=3, branch_every=40, length=60, soma_radius=5, stem_radius=2.2, tip_radius=1.2)
    neuron = render_neuron(grow_tree(shape, growth, seed=3), shape, Microscope(), seed=3)
    tifffile.imwrite(folder / "stack.tif", neuron.image, imagej=True, metadata={"axes": "ZYX"})
    write_v3draw(folder / "stack.v3draw", neuron.image)
    store = create_ome_zarr(folder / "stack.ome.zarr", shape, neuron.image.dtype, chunks=(32, 32, 32))
    store.write(tuple(slice(0, n) for n in shape), neuron.image)
    write_swc(folder / "gold.swc", neuron.tree)
    write_swc(folder / "tree.swc", neuron.tree)
    broken = "1 0 10 10 10 1 2\n2 0 12 10 10 0 -1\n5 0 13 10 10 1 2\n3 2 14 10 10 1 2\n4 3 15 10 10 1 3\n"
    (folder / "broken.swc").write_text(broken, encoding="utf-8")


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    with contextlib.chdir(folder):
        yield


def main() -> None:
    """Run the pages that are named, and print the time of each step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", default=list(PAGES))
    parser.add_argument("--folder", type=Path, help="an empty folder to work in and to keep")
    parser.add_argument("--demos", action="store_true", help="run `medwave demo` too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = (options.folder or Path(scratch)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        make_samples(home)
        with _inside(home):
            for page in options.pages:
                names: dict[str, object] = {}
                for step in steps(page):
                    if step.text.startswith("medwave demo") and not options.demos:
                        continue
                    cpu, wall = time.process_time(), time.perf_counter()
                    run_step(step, names)
                    spent = time.process_time() - cpu, time.perf_counter() - wall
                    first = step.text.strip().splitlines()[0]
                    print(f"{step.place}: {spent[0]:.1f} CPU s, {spent[1]:.1f} s: {first}", flush=True)


if __name__ == "__main__":
    main()
