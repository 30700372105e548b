"""Bad input: one line on stderr that names the file, the rule and the way out; exit code 2; nothing left behind."""

import gzip
import json
import os
import signal
import struct
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import torch
from cli_cases import GRID, QUICK, ball, labels, listing

from medwave.__main__ import main
from medwave.core.geometry import Grid, Volume
from medwave.volumes import read_labels, write_volume

PIXDIM = 76  # offset of the voxel sizes in a NIfTI header


def noise(*shape):
    return np.random.default_rng(0).random(shape, np.float32)


def nifti(path, data, affine=GRID.affine):
    """Write any array as nibabel would, without medwave's checks."""
    nib.save(nib.Nifti1Image(data, affine), path)


def spacing(path, source, value):
    """A copy of an image whose header says another voxel size along the second axis."""
    content = bytearray(gzip.decompress(source.read_bytes()))
    struct.pack_into("<f", content, PIXDIM + 8, value)
    path.write_bytes(gzip.compress(bytes(content)))


def with_value(value):
    data = ball((0.0, 0.0, 0.0))
    data[3, 4, 5] = value
    return data


BAD_IMAGES = {
    "missing": (lambda p, pair: None, "no such file"),
    "a folder": (lambda p, pair: p.mkdir(), "this is a folder"),
    "empty": (lambda p, pair: p.touch(), "not a NIfTI file"),
    "not an image": (lambda p, pair: p.write_text("hello " * 200), "not a NIfTI file"),
    "truncated": (lambda p, pair: p.write_bytes(pair["fixed"].read_bytes()[:3000]), "truncated or damaged"),
    "4-D": (lambda p, pair: nifti(p, noise(9, 9, 9, 5)), "a 3-D image is needed"),
    "5-D": (lambda p, pair: nifti(p, noise(9, 9, 9, 5, 3)), "a 3-D image is needed"),
    "2-D": (lambda p, pair: nifti(p, noise(40, 40)), "a 3-D image is needed"),
    "NaN": (lambda p, pair: nifti(p, with_value(np.nan)), "1 voxels are NaN or infinite"),
    "infinite": (lambda p, pair: nifti(p, with_value(-np.inf)), "1 voxels are NaN or infinite"),
    "zero spacing": (lambda p, pair: spacing(p, pair["fixed"], 0.0), "voxel sizes are positive"),
    "negative spacing": (lambda p, pair: spacing(p, pair["fixed"], -1.0), "voxel sizes are positive"),
}  # fmt: skip


@pytest.fixture
def refused(medwave, tmp_path):
    """Run a command that must fail: returns its one line, after looking that nothing was left behind."""

    def check(*words):
        before = listing(tmp_path)
        done = medwave(*words)
        assert done.code == 2
        assert len(done.errors) == 1, done.err
        assert all(line.startswith("medwave: ") for line in done.err.splitlines())
        assert done.err.splitlines()[-1] == done.errors[0]
        assert not done.out
        assert listing(tmp_path) == before
        return done.errors[0]

    return check


@pytest.mark.parametrize("role", ["fixed", "moving"])
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_register_refuses_images(refused, pair, tmp_path, kind, role):
    make, rule = BAD_IMAGES[kind]
    bad = tmp_path / "bad.nii.gz"
    make(bad, pair)
    files = {"fixed": pair["fixed"], "moving": pair["moving"], role: bad}
    line = refused("register", files["fixed"], files["moving"], "-o", tmp_path / "new" / "run", *QUICK)
    assert "bad.nii.gz" in line
    assert rule in line


APPLY = [(kind, option) for kind in BAD_IMAGES for option in ("images", "--labels", "--reference")]
APPLY.remove(("4-D", "images"))  # which it moves, volume by volume


@pytest.mark.parametrize(("kind", "option"), APPLY)
def test_apply_refuses_images(refused, pair, run, tmp_path, kind, option):
    make, rule = BAD_IMAGES[kind]
    bad = tmp_path / "bad.nii.gz"
    make(bad, pair)
    words = [bad] if option == "images" else [option, bad]
    line = refused("apply", run, pair["moving"], *words, "-o", tmp_path / "new" / "moved")
    assert "bad.nii.gz" in line
    assert rule in line


@pytest.mark.parametrize("name", ["image.png", "image", "image.csv"])
def test_other_formats_are_refused_with_those_that_are_read(refused, pair, tmp_path, name):
    (tmp_path / name).write_bytes(b"\x89PNG")
    line = refused("register", pair["fixed"], tmp_path / name, "-o", tmp_path / "run", *QUICK)
    assert name in line
    assert ".nii.gz" in line
    assert ".nrrd" in line


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (np.full(GRID.shape, 7.0, np.float32), "an image with contrast is needed"),
        (np.zeros(GRID.shape, np.float32), "an image with contrast is needed"),
        (ball((0.0, 0.0, 0.0))[:, :, :1], "a single slice"),
    ],
)
@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_register_refuses_images_that_show_nothing(refused, pair, tmp_path, data, rule, role):
    bad = tmp_path / "bad.nii.gz"
    nifti(bad, data)
    files = {"fixed": pair["fixed"], "moving": pair["moving"], role: bad}
    line = refused("register", files["fixed"], files["moving"], "-o", tmp_path / "run", *QUICK)
    assert "bad.nii.gz" in line
    assert rule in line


def test_a_sheared_grid_is_refused(refused, pair, tmp_path):
    affine = GRID.affine.copy()
    affine[0, 1] = 1.0
    nifti(tmp_path / "bad.nii.gz", ball((0.0, 0.0, 0.0)), affine)
    line = refused("register", tmp_path / "bad.nii.gz", pair["moving"], "-o", tmp_path / "run", *QUICK)
    assert "right angles" in line


@pytest.mark.parametrize("side", ["fixed", "moving"])
@pytest.mark.parametrize("kind", ["mask", "lesion"])
def test_masks_that_are_empty_or_elsewhere_are_refused(refused, pair, tmp_path, kind, side):
    bad, option = tmp_path / "bad.nii.gz", f"--{kind}-{side}"
    words = ("register", pair["fixed"], pair["moving"], "-o", tmp_path / "run", option, bad, *QUICK)
    write_volume(bad, Volume(np.zeros(GRID.shape, np.uint8), GRID))
    assert "the mask is empty" in refused(*words)
    write_volume(bad, Volume(np.ones((20, 22, 17), np.uint8), GRID.crop((0, 0, 0), (20, 22, 17))))
    line = refused(*words)
    assert "bad.nii.gz" in line
    assert "must lie on its grid" in line
    write_volume(bad, Volume(np.full(GRID.shape, 0.5, np.float32), GRID))
    assert "whole numbers" in refused(*words)


def test_a_lesion_that_covers_the_mask_is_refused(refused, pair, tmp_path):
    for name, data in (("mask", np.eye(20, 22)), ("lesion", np.ones((20, 22)))):
        whole = np.broadcast_to(data[:, :, None], GRID.shape).astype(np.uint8)
        write_volume(tmp_path / f"{name}.nii.gz", Volume(whole, GRID))
    line = refused(
        "register", pair["fixed"], pair["moving"], "-o", tmp_path / "run", *QUICK,
        "--mask-fixed", tmp_path / "mask.nii.gz", "--lesion-fixed", tmp_path / "lesion.nii.gz",
    )  # fmt: skip
    assert "leave no voxel" in line


@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_label_maps_of_another_geometry_are_refused(refused, pair, tmp_path, side):
    """The same shape, half a voxel away."""
    affine = GRID.affine.copy()
    affine[1, 3] += 2.0
    bad = tmp_path / "bad.nii.gz"
    write_volume(bad, Volume(labels((0.0, 0.0, 0.0)), Grid(GRID.shape, affine)))
    line = refused("register", pair["fixed"], pair["moving"], "-o", tmp_path / "run", f"--labels-{side}", bad, *QUICK)
    assert "bad.nii.gz" in line
    assert "must lie on its grid" in line
    assert "resample" in line


@pytest.mark.parametrize("command", ["register", "apply"])
def test_output_that_cannot_be_made_is_refused(refused, pair, run, tmp_path, command):
    taken = tmp_path / "taken"
    taken.write_text("kept")
    words = [pair["fixed"], pair["moving"], *QUICK] if command == "register" else [run, pair["moving"]]
    for out in (taken, taken / "below", tmp_path / "new" / ("too long" * 50)):
        line = refused(command, *words, "-o", out)
        assert str(out) in line
        assert "choose another" in line
    assert taken.read_text() == "kept"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("command", ["register", "apply"])
def test_output_without_permission_is_refused(refused, pair, run, tmp_path, command):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    words = [pair["fixed"], pair["moving"], *QUICK] if command == "register" else [run, pair["moving"]]
    assert "cannot be used as an output folder" in refused(command, *words, "-o", closed / "run")


def test_a_result_never_replaces_an_input(refused, pair, tmp_path):
    copy = tmp_path / "warped.nii.gz"
    copy.write_bytes(pair["moving"].read_bytes())
    line = refused("register", pair["fixed"], copy, "-o", tmp_path, *QUICK)
    assert "would replace this input" in line
    assert copy.read_bytes() == pair["moving"].read_bytes()


def test_a_run_is_not_replaced_by_what_starts_from_it_or_measures_it(refused, pair, run):
    before = {name: (run / name).read_bytes() for name in listing(run) if (run / name).is_file()}
    assert "would replace this input" in refused(
        "register", pair["fixed"], pair["moving"], "--init", run, "-o", run, *QUICK
    )
    assert "would replace its input" in refused("evaluate", run, "--json", run / "run.json")
    assert {name: (run / name).read_bytes() for name in before} == before


def test_an_absent_reference_is_told_also_where_there_is_an_older_result(refused, medwave, pair, run, tmp_path):
    words = ("apply", run, pair["moving"], "-o", tmp_path / "moved")
    assert medwave(*words).code == 0
    assert "absent.nii.gz: no such file" in refused(*words, "--reference", tmp_path / "absent.nii.gz")


def test_a_failed_run_leaves_an_older_one_as_it_was(refused, medwave, pair, run, tmp_path):
    before = {name: (run / name).read_bytes() for name in listing(run) if (run / name).is_file()}
    refused("register", pair["fixed"], tmp_path / "absent.nii.gz", "-o", run, *QUICK)
    assert {name: (run / name).read_bytes() for name in before} == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_gpu_that_is_absent_is_said(refused, pair, tmp_path):
    line = refused("register", pair["fixed"], pair["moving"], "-o", tmp_path / "run", "--device", "cuda")
    assert "'cuda' is not usable" in line
    assert "--device cpu" in line


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--metric", "best"), "'best' is not one of 'auto', 'lncc', 'curve', 'mi'"),
        (("--preset", "quick"), "'quick' is not one of 'fast', 'balanced', 'accurate'"),
        (("--affine", "full"), "'full' is not one of"),
        (("--radius", "9"), "radius: the local window reaches 1 to 4 voxels, got 9"),
        (("--radius", "wide"), "--radius"),
        (("--threads", "-2"), "threads: a number of threads or 0 for all, got -2"),
        (("--device", "nowhere"), "device 'nowhere' is not usable"),
        (("--device", "cuda:99"), "device 'cuda:99' is not usable"),
        (("--device", "meta"), "device 'meta' is not usable"),
        (("--nonsense",), "No such option"),
        (("--init", "absent.tfm"), "absent.tfm: no such file"),
        (("--weights", "absent.safetensors"), "absent.safetensors"),
        (
            ("--weights", "heart"),
            "heart: there is no such weight file; weights that come with medwave are called neuron",
        ),
        (("--weights", "neuron"), "neuron_wavesnet.safetensors: weights of a WiNet are needed, these are of WaveUNet"),
    ],
)
def test_bad_option_values_are_refused(refused, pair, tmp_path, words, rule):
    assert rule in refused("register", pair["fixed"], pair["moving"], "-o", tmp_path / "run", *words)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("register",), "Missing argument 'FIXED'"),
        (("register", "a.nii.gz", "b.nii.gz"), "Missing option '--output'"),
        (("apply", "-o", "x"), "a transform is needed"),
        (("enlist",), "No such command 'enlist'"),
        (("evaluate",), "nothing to measure"),
        (("apply", "absent", "a.nii.gz", "-o", "x"), "absent: the first name is the folder of a run"),
    ],
)
def test_incomplete_commands_are_refused(refused, words, rule):
    assert rule in refused(*words)


def test_an_init_that_is_no_affine_is_refused(refused, pair, run, tmp_path):
    words = ("register", pair["fixed"], pair["moving"], "-o", tmp_path / "new", *QUICK, "--init")
    assert "a displacement field is a 5-D NIfTI file" in refused(*words, pair["fixed"])
    (tmp_path / "bad.tfm").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n")
    assert "bad.tfm: not an ITK transform file" in refused(*words, tmp_path / "bad.tfm")


POINTS = {
    "no such file": None,
    "the file is empty": "",
    "columns x, y and z are needed": "a,b,c\n1,2,3\n",
    "line 3: a coordinate is a finite number": "x,y,z\n1,2,3\n1,two,3\n",
    "line 2: 3 columns are named, 2 values came": "x,y,z\n1,2\n",
}


@pytest.mark.parametrize("rule", POINTS)
def test_apply_refuses_points(refused, run, tmp_path, rule):
    if POINTS[rule] is not None:
        (tmp_path / "bad.csv").write_text(POINTS[rule])
    line = refused("apply", run, "--points", tmp_path / "bad.csv", "-o", tmp_path / "moved")
    assert "bad.csv" in line
    assert rule in line


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--direction", "sideways"), "'sideways' is not one of 'moving-to-fixed', 'fixed-to-moving'"),
        (("--interpolation", "label"), "'label' is not one of 'linear', 'cubic', 'nearest'"),
        (("--label-interpolation", "linear"), "'linear' is not one of 'nearest', 'label'"),
        (("--space", "LAS"), "'LAS' is not one of 'RAS', 'LPS'"),
    ],
)
def test_apply_refuses_bad_option_values(refused, pair, run, tmp_path, words, rule):
    assert rule in refused("apply", run, pair["moving"], "-o", tmp_path / "moved", *words)


def test_apply_refuses_folders_without_a_complete_run(refused, pair, run, tmp_path):
    words = (pair["moving"], "-o", tmp_path / "moved")
    (tmp_path / "empty").mkdir()
    assert "the folder of a complete run" in refused("apply", tmp_path / "empty", *words)
    (run / "transform" / "affine.tfm").unlink()
    assert "affine.tfm: no such file" in refused("apply", run, *words)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n" + bytes(64)])
def test_apply_refuses_damaged_transforms(refused, pair, tmp_path, content):
    bad = tmp_path / "bad.h5"
    bad.write_bytes(content)
    line = refused("apply", pair["moving"], "--transform", bad, "--reference", pair["fixed"], "-o", tmp_path / "moved")
    assert "bad.h5: not an ITK transform file" in line


def test_evaluate_refuses_in_one_line(refused, pair, tmp_path):
    maps = ("--labels-fixed", pair["fixed_labels"], "--labels-moving", pair["moving_labels"])
    assert "does not exist" in refused("evaluate", *maps, "--json", tmp_path / "no" / "scores.json")
    assert "both --labels-fixed and --labels-moving" in refused("evaluate", *maps[:2])
    assert "would replace its input" in refused("evaluate", *maps, "--json", pair["fixed_labels"])
    assert read_labels(pair["fixed_labels"]).data.any()


def test_json_that_cannot_be_written_is_told_before_the_work(refused, medwave, pair, tmp_path):
    words = ("batch", pair["fixed"].parent, "--all-pairs", "-o", tmp_path / "out", *QUICK, "--json")
    assert "does not exist" in refused(*words, tmp_path / "no" / "all.json")
    assert "this is a folder" in refused(*words, tmp_path)
    assert not (tmp_path / "out").exists()
    (tmp_path / "tree.swc").write_text("1 1 0 0 0 1 -1\n2 1 9 0 0 1 1\n")
    assert "would replace its input" in refused("swc", "check", tmp_path / "tree.swc", "--json", tmp_path / "tree.swc")
    assert "would replace its input" in refused(
        "score", tmp_path / "tree.swc", tmp_path / "tree.swc", "--json", tmp_path / "tree.swc"
    )
    assert "would replace its input" in refused(
        "trace", tmp_path / "tree.swc", "-o", "t.swc", "--dry-run", "--json", tmp_path / "tree.swc"
    )
    assert medwave(*words, tmp_path / "out" / "all.json").code == 0
    assert len(json.loads((tmp_path / "out" / "all.json").read_text())) > 1


def start(*words, folder):
    """``medwave`` as a process of its own."""
    script = "from medwave.cli.app import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_process_of_its_own_says_it_alike(tmp_path):
    process = start("register", "absent.nii.gz", "other.nii.gz", "-o", "run", folder=tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out == ""
    assert err.splitlines()[-1] == "medwave: error: absent.nii.gz: no such file; check the name and the folder"
    assert "Traceback" not in err
    assert listing(tmp_path) == []


def test_a_full_disk_under_stdout_is_said(tmp_path):
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); from medwave.cli.app import main; main()"
    )
    with (tmp_path / "out.txt").open("w") as stdout:
        done = subprocess.run(
            [sys.executable, "-c", script, "--version"], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "medwave: error: stdout: cannot be written (File too large); check the free space\n"


def test_ctrl_c_leaves_nothing(tmp_path):
    """Interrupted in the refinement of a volume large enough to be met in it."""
    grid = Grid((160, 170, 160), np.eye(4))
    for name, centre in (("fixed", (80.0, 85.0, 80.0)), ("moving", (85.0, 82.0, 78.0))):
        write_volume(tmp_path / f"{name}.nii", Volume(ball(centre, grid=grid, radius_mm=64.0), grid))
    process = start(
        "register", "fixed.nii", "moving.nii", "-o", "new/run", "--affine", "none", "--preset", "accurate",
        "--threads", 1, folder=tmp_path,
    )  # fmt: skip
    for line in process.stderr:
        if line == "medwave: refine\n":
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines() == ["medwave: interrupted; nothing half-written was left"]
    assert listing(tmp_path) == ["fixed.nii", "moving.nii"]


def test_ctrl_c_during_the_imports_is_quiet(monkeypatch):
    class Interrupted:
        def find_spec(self, name, *_):
            if name == "medwave.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "medwave.cli.app")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130


def test_an_interrupt_that_was_swallowed_comes_again(tmp_path):
    """numba loads compiled loops in a callback that swallows whatever is raised in it, as ``__del__`` does."""
    script = """
import time
from medwave.cli.app import _interrupts_repeated

class Swallowing:
    def __del__(self):
        raise KeyboardInterrupt

with _interrupts_repeated():
    Swallowing()
    time.sleep(20)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"
    assert "ignored" not in done.stderr
