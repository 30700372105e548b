"""Templates: laws of the mean, order, resume, images that cannot be used."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import phantom
import pytest

from medwave.core import provenance
from medwave.core.errors import InputError, OutputError
from medwave.core.geometry import Volume
from medwave.fields.middle import to_common_world
from medwave.volumes import FieldStep, read_volume, write_volume
from medwave.workflows.batch import BEFORE, DONE
from medwave.workflows.options_cohort import TemplateOptions
from medwave.workflows.register import register
from medwave.workflows.template import Alignments, build_template
from medwave.workflows.template_average import Moved, shape_update
from medwave.workflows.template_images import look_at

QUICK = TemplateOptions(preset="fast", affine="none", threads=1, iterations=2)
RUN = "import sys; sys.argv[0] = 'medwave'; from medwave.cli.app import main; main()"
GRID = phantom.turned(spacing_mm=(4.0,) * 3)
HEADS = {"a": (1.0, (4, 0, -3), 1.06), "b": (-1.0, (-4, 2, 0), 1 / 1.06), "c": (0.0, (0, -2, 3), 1.0)}


def head(share, shift_mm=(0.0, 0.0, 0.0), scale=1.0):
    """The head under ``T(x) = scale (x + share u(x)) + shift``."""
    points = phantom.world(GRID).reshape(-1, 3)
    targets = (points - shift_mm) / scale
    found = targets
    for _ in range(40):
        found = targets - share * phantom.steps_mm(found)
    return Volume(np.float32(1000 * phantom.intensity(found)).reshape(GRID.shape), GRID)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Three heads whose shapes, places and sizes lie about a mean."""
    folder = tmp_path_factory.mktemp("cohort")
    for name, truth in HEADS.items():
        write_volume(folder / f"{name}.nii.gz", head(*truth))
    return folder


@pytest.fixture(scope="module")
def made(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("made")
    return build_template([cohort], out, options=QUICK), out


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in ("run.json", "index.html")
    }  # fmt: skip


def fields(folder, shares):
    """Images that are known to be reached from the grid by ``A (x + share u(x))``."""
    points = phantom.world(GRID).reshape(-1, 3)
    u = (phantom.steps_mm(points) / GRID.spacing_mm).reshape(*GRID.shape, 3)
    write_volume(folder / "one.nii.gz", head(0.0))
    (image,), _ = look_at([folder / "one.nii.gz"])
    for share, matrix in shares:
        step = FieldStep(np.ascontiguousarray(np.moveaxis(share * u, -1, 0), dtype=np.float32), GRID)
        yield Moved(image, matrix, lambda step=step: step)


def mean_way(moved, home):
    """Mean displacement in mm from the new template to the images, and that of a single one, inside the head."""
    step = shape_update(moved, home, GRID, GRID)
    points = phantom.inside_points()[::10]
    ways = [one.transform.apply_points_mm(step.apply(points)) - points for one in moved]
    return np.linalg.norm(np.mean(ways, axis=0), axis=-1).mean(), np.linalg.norm(ways, axis=-1).mean()


def test_known_displacements_vanish_on_average_from_the_new_template(tmp_path):
    moved = list(fields(tmp_path, [(share, np.eye(4)) for share in (1.0, 0.4, -0.2, 0.8)]))
    mean, single = mean_way(moved, np.eye(4))
    assert single > 1.5
    assert mean < 0.04  # a hundredth of a voxel: between voxels a field and its inverse are interpolated


def test_known_affines_vanish_on_average_too(tmp_path):
    other = np.linalg.inv(phantom.MATRIX) @ np.diag([1.1, 1.1, 1.1, 1])
    moved = list(fields(tmp_path, [(1.0, phantom.MATRIX), (0.3, other), (-0.1, phantom.MATRIX @ other)]))
    mean, single = mean_way(moved, to_common_world([one.matrix for one in moved], np.zeros(3)))
    assert single > 4
    assert mean < 0.05 * single


def test_the_template_of_copies_of_one_image_is_that_image(cohort, tmp_path):
    copies = [tmp_path / f"{n}.nii.gz" for n in range(2)]
    for copy in copies:
        copy.write_bytes((cohort / "a.nii.gz").read_bytes())
    image = read_volume(cohort / "a.nii.gz")
    found = build_template(copies, tmp_path / "out", options=QUICK, affine="affine", iterations=1)
    assert found.template.grid.matches(image.grid)
    np.testing.assert_allclose(found.template.data, image.data, atol=0.01 * image.data.max())
    assert found.iterations[-1]["spread"] < 1e-3
    assert found.failed == {}


def test_images_that_only_their_folders_tell_apart_start_from_matrices_of_their_own(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "LARGEST_HASHED_BYTES", 0)  # larger ones are told apart by name, size and time
    paths = [tmp_path / name / "t1.nii" for name in "ab"]
    for path in paths:
        path.parent.mkdir()
        write_volume(path, read_volume(cohort / f"{path.parent.name}.nii.gz"))
        os.utime(path, (1e9, 1e9))
    options = replace(QUICK, affine="rigid", deformable=False, iterations=1)
    build_template(paths, tmp_path / "out", options=options)
    starts = json.loads((tmp_path / "out/iterations/0/iteration.json").read_text())["starts"]
    assert sorted(starts) == ["t1", "t1-2"]
    assert starts["t1"] != starts["t1-2"]


def test_the_mean_way_to_the_images_is_short(cohort, tmp_path):
    options = {"preset": "balanced", "affine": "affine", "threads": 1}
    found = build_template([cohort], tmp_path, iterations=1, **options)
    first, last = found.iterations
    assert last["spread"] < 0.7 * first["spread"]
    points = phantom.inside_points()[::20]

    def mean_from(image):
        runs = [register(image, cohort / f"{name}.nii.gz", **options) for name in HEADS]
        return np.linalg.norm(np.mean([r.transform.apply_points_mm(points) - points for r in runs], axis=0), axis=-1)

    # half a voxel: the local correlation draws the maps inwards by a fifth of one, from whichever image
    assert mean_from(found.template).mean() < 0.5 * GRID.spacing_mm[0]
    assert np.linalg.norm(head_way(points, "a"), axis=-1).mean() > 1.5 * GRID.spacing_mm[0]
    between = head(0.0).data
    assert np.corrcoef(found.template.data[between > 0], between[between > 0])[0, 1] > 0.95


def head_way(points, name):
    """From the mean head to one of the heads."""
    share, shift, scale = HEADS[name]
    return scale * (points + share * phantom.steps_mm(points)) + shift - points


def test_neither_order_nor_names_shape_the_template(made, cohort, tmp_path):
    _, out = made
    renamed = {name: tmp_path / f"{other}.nii.gz" for name, other in zip("abc", "zyx", strict=True)}
    for name, path in renamed.items():
        path.write_bytes((cohort / f"{name}.nii.gz").read_bytes())
    build_template([renamed[name] for name in "bca"], tmp_path / "out", options=QUICK)
    for number in range(3):
        name = f"iterations/{number}/template.nii.gz"
        assert (tmp_path / "out" / name).read_bytes() == (out / name).read_bytes()
    page = (tmp_path / "out/index.html").read_text()
    assert page.count("data:image/jpeg") == 9


def test_a_run_that_was_stopped_goes_on_to_the_same_files(made, cohort, tmp_path):
    _, out = made
    seen = []

    def stop(outcome, _):
        seen.append(outcome.status)
        if len(seen) in (2, 5, 9):
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            build_template([cohort], tmp_path / "out", options=QUICK, on_outcome=stop)
    build_template([cohort], tmp_path / "out", options=QUICK, on_outcome=stop)
    assert files_of(tmp_path / "out") == files_of(out)
    assert seen.count("done") == 9  # nothing was done twice
    more = build_template([cohort], tmp_path / "out", options=QUICK, iterations=1, sharpen=0.5)
    assert more.iterations[-1]["change"] is not None
    assert (
        np.asarray(more.template.data).std() > np.asarray(read_volume(out / "iterations/1/template.nii.gz").data).std()
    )


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_files(made, cohort, tmp_path):
    _, out = made
    words = ("template", str(cohort), "-o", str(tmp_path), "--preset", "fast", "--affine", "none", "--iterations", "2")
    command = [sys.executable, "-c", RUN, *words, "--threads", "1"]
    for wanted in ("iterations/0/runs/*/run.json", "iterations/1/runs/*/run.json", "iterations/2"):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            while child.poll() is None and not list(tmp_path.glob(wanted)):
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
    subprocess.run(command, check=True, capture_output=True)
    assert files_of(tmp_path) == files_of(out)


def test_an_image_that_fails_is_listed_and_left_out(made, cohort, tmp_path):
    found, _ = made
    broken, absent = tmp_path / "broken.nii.gz", tmp_path / "absent.nii.gz"
    broken.write_bytes(b"no image")
    paths = [*sorted(cohort.iterdir()), broken, absent]
    again = build_template(paths, tmp_path / "out", options=QUICK)
    assert sorted(again.failed) == ["absent", "broken"]
    np.testing.assert_array_equal(again.template.data, found.template.data)
    with (tmp_path / "out/failed.csv").open(newline="") as stream:
        assert {row["name"]: row["image"] for row in csv.DictReader(stream)} == {
            "absent": str(absent), "broken": str(broken),
        }  # fmt: skip
    assert set(json.loads((tmp_path / "out/run.json").read_text())["failed"]) == {"absent", "broken"}
    with pytest.raises(InputError, match=r"2 or more images, 1 can be used, 2 failed: .*absent"):
        build_template([paths[0], absent, broken], tmp_path / "none", options=QUICK)


def test_an_image_whose_process_died_is_tried_again(cohort, tmp_path, monkeypatch):
    options = replace(QUICK, deformable=False, iterations=1)
    with monkeypatch.context() as patch:
        patch.setattr(Alignments, "_deform", die_of_b)
        first = build_template([cohort], tmp_path, options=options)
    assert list(first.failed) == ["b"]
    told = []
    again = build_template([cohort], tmp_path, options=options, on_outcome=lambda o, _: told.append(o.status))
    assert again.failed == {}
    assert [one["images"] for one in again.iterations] == [3, 3]
    assert sorted(told) == [BEFORE, BEFORE, DONE]  # of the second iteration; the others are not registered again
    assert not list(tmp_path.glob("iterations/*/runs"))


def test_an_image_that_is_replaced_meanwhile_is_left_out(cohort, tmp_path, monkeypatch):
    paths = [tmp_path / f"{name}.nii.gz" for name in "abc"]
    for path in paths:
        path.write_bytes((cohort / path.name).read_bytes())

    def replacing(self, item, align=Alignments._align):
        (tmp_path / "b.nii.gz").write_bytes((cohort / "a.nii.gz").read_bytes())
        return align(self, item)

    monkeypatch.setattr(Alignments, "_align", replacing)
    options = replace(QUICK, deformable=False, iterations=1)
    found = build_template(paths, tmp_path / "out", options=options)
    assert "changed while it was worked on" in found.failed["b"][1]
    assert sorted(json.loads((tmp_path / "out/run.json").read_text())["inputs"]) == ["a", "c"]


def die_of_b(self, item, folder, deform=Alignments._deform):
    if item.name == "b":
        raise MemoryError
    return deform(self, item, folder)


def test_an_image_that_is_like_none_of_the_others_is_left_out(cohort, tmp_path):
    noise = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32) ** 2
    write_volume(tmp_path / "noise.nii.gz", Volume(noise, GRID))
    paths = [cohort / "a.nii.gz", cohort / "c.nii.gz", tmp_path / "noise.nii.gz"]
    found = build_template(paths, tmp_path / "out", options=QUICK, affine="rigid", deformable=False, iterations=1)
    assert "could not be aligned to the others" in found.failed["noise"][1]
    assert found.iterations[-1]["images"] == 2


def test_a_grid_of_its_own_holds_all_subjects(cohort, tmp_path):
    found = build_template([cohort], tmp_path, options=QUICK, spacing=5.0, iterations=1)
    assert found.template.grid.spacing_mm == pytest.approx([5, 5, 5])
    corners = found.template.grid.to_mm([(0, 0, 0), np.array(found.template.grid.shape) - 1])
    assert (corners[0] < -phantom.RADII_MM - 5).all()
    assert (corners[1] > phantom.RADII_MM + 5).all()
    assert np.abs(np.asarray(found.template.data)[[0, -1]]).max() == 0


def test_the_template_replaces_no_input(cohort, tmp_path):
    (tmp_path / "template.nii.gz").write_bytes((cohort / "a.nii.gz").read_bytes())
    with pytest.raises(OutputError, match="would replace this input"):
        build_template([cohort, tmp_path / "template.nii.gz"], tmp_path, options=QUICK)


@pytest.mark.parametrize("bad", [{"iterations": 0}, {"sharpen": 3}, {"spacing": 0.0}])
def test_options_out_of_range(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        TemplateOptions(**bad)
