"""The commands as a person types them: what they print, write and import."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from cli_cases import QUICK, listing

import medwave as package
from medwave.core.provenance import fingerprint
from medwave.models import shipped_weights
from medwave.models.weights import NEURON_WEIGHTS, SHIPPED
from medwave.volumes import PointTable, read_points, read_volume, write_points
from medwave.workflows.run_folder import FILES


def test_help_imports_nothing_heavy():
    """Which is what keeps it under a second."""
    code = (
        "import sys; sys.argv = ['medwave', '--help']; from medwave.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'numpy', 'scipy', 'monai', 'numba', 'SimpleITK', 'nibabel', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("register", "apply", "evaluate", "demo"):
        assert command in done.stdout


@pytest.mark.parametrize("command", ["register", "apply", "evaluate", "demo", ("demo", "brains")])
def test_every_command_explains_itself(medwave, command):
    words = (command,) if isinstance(command, str) else command
    done = medwave(*words, "--help")
    assert done.code == 0
    assert "Usage" in done.out
    assert not done.err


def test_version(medwave):
    assert medwave("--version").out == f"medwave {package.__version__}\n"


def test_help_says_which_map_serves_images_and_points(medwave, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    text = " ".join(medwave("apply", "--help").out.split())
    assert "moving-to-fixed" in text
    assert "fixed-to-moving" in text
    assert "composite.h5" in text
    assert "inverse" in text


def test_register_writes_everything_and_says_where(medwave, pair, tmp_path):
    out = tmp_path / "new" / "run"
    done = medwave(
        "register", pair["fixed"], pair["moving"], "-o", out, "--labels-fixed", pair["fixed_labels"],
        "--labels-moving", pair["moving_labels"], "--affine", "rigid", "--threads", 1,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"report: {out / 'report.html'}"
    assert [line for line in listing(out) if "." in line] == sorted(
        [*(name for name, _ in FILES.values()), "run.json", "report.html"]
    )
    assert not done.errors
    record = json.loads((out / "run.json").read_text())
    assert record["command"].startswith("medwave register ")
    assert record["options"]["affine"] == "rigid"
    assert record["inputs"]["fixed"]["path"] == str(pair["fixed"])
    before, after = (np.mean([scores[when] for scores in record["dice"].values()]) for when in ("before", "after"))
    assert after > before + 0.03  # a ball without texture: what accuracy is, tests/workflows says


def test_register_takes_weights_by_their_name(medwave, pair, tmp_path):
    done = medwave("register", pair["fixed"], pair["moving"], "-o", tmp_path / "run", "--weights", "brain", *QUICK)
    assert done.code == 0, done.err
    assert "medwave: predict" in done.err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["inputs"]["weights"] == {
        "path": str(shipped_weights("brain")),
        **fingerprint(shipped_weights("brain")),
    }


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("register", {"brain"}),
        ("batch", {"brain"}),
        ("segment", set(NEURON_WEIGHTS)),
        ("reconstruct", set(NEURON_WEIGHTS)),
        ("demo neuron", set(NEURON_WEIGHTS)),
        ("train winet", {"brain"}),
        ("train waveunet", set(NEURON_WEIGHTS)),
        ("export", set(SHIPPED)),
    ],
)
def test_help_says_which_weights_come_with_medwave(medwave, monkeypatch, command, names):
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    (said,) = re.findall(
        r"a file(?: \(safetensors\))?, or ([a-z_, ]+), which comes?", medwave(*command.split(), "--help").out
    )
    assert set(re.split(", | or ", said)) == names


def test_apply_moves_several_files(medwave, pair, run, tmp_path):
    points = tmp_path / "points.csv"
    write_points(points, PointTable(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])))
    done = medwave(
        "apply", run, pair["moving"], pair["moving"].with_name("moving_labels.nii.gz"), "-o", tmp_path / "moved",
        "--labels", pair["fixed_labels"], "--points", points, "--interpolation", "nearest",
    )  # fmt: skip
    assert done.code == 0, done.err
    names = ["moving_to-fixed.nii.gz", "moving_labels_to-fixed.nii.gz"]
    names += ["fixed_labels_to-fixed.nii.gz", "points_to-fixed.csv"]
    assert done.out.splitlines() == [str(tmp_path / "moved" / name) for name in names]
    assert listing(tmp_path / "moved") == sorted(names)
    # the quick run's transform is the identity
    np.testing.assert_allclose(read_points(tmp_path / "moved" / names[-1]).points_mm, [[1, 2, 3], [4, 5, 6]])
    moved, original = (read_volume(path, dtype=None).data for path in (tmp_path / "moved" / names[0], pair["moving"]))
    np.testing.assert_array_equal(moved, original)


def test_apply_with_transform_files_and_the_other_direction(medwave, pair, run, tmp_path):
    done = medwave(
        "apply", pair["moving"], "--transform", run / "transform/affine.tfm", "--reference", pair["fixed"],
        "-o", tmp_path / "moved",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert listing(tmp_path / "moved") == ["moving_moved.nii.gz"]
    done = medwave(
        "apply", run, pair["fixed"], "--direction", "fixed-to-moving", "-o", tmp_path / "back", "--suffix", ".back"
    )
    assert done.code == 0, done.err
    assert listing(tmp_path / "back") == ["fixed.back.nii.gz"]


def test_evaluate_prints_a_table_and_writes_json(medwave, pair, run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    names = tmp_path / "names.csv"
    names.write_text("label,name\n1,a [left]\n2,b[/red]\n")
    maps = ("--labels-fixed", pair["fixed_labels"], "--labels-moving", pair["moving_labels"], "--names", names)
    done = medwave("evaluate", run, *maps, "--json", tmp_path / "scores.json")
    assert done.code == 0, done.err
    for words in ("a [left]", "b[/red]", "mean of 2", "Dice", "HD95 mm", "ASSD mm", "folded voxels", "consistency"):
        assert words in done.out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert [s["name"] for s in scores["structures"]] == ["a [left]", "b[/red]"]
    assert f"{scores['mean']['dice']:.3f}" in done.out
    assert scores["field"]["folded_voxels"] == 0
    piped = medwave("evaluate", run, *maps, "--json", "-")
    assert json.loads(piped.out) == scores
    alone = medwave("evaluate", *maps)
    assert alone.code == 0
    assert "folded" not in alone.out
    only_run = medwave("evaluate", run)
    assert only_run.code == 0
    assert "Dice" not in only_run.out


def test_evaluate_names_structures_that_one_map_lacks(medwave, pair, tmp_path):
    volume = read_volume(pair["fixed_labels"], dtype=None)
    data = volume.data.copy()
    data[0, 0, 0] = 77
    package.volumes.write_volume(tmp_path / "more.nii.gz", package.core.geometry.Volume(data, volume.grid))
    done = medwave("evaluate", "--labels-fixed", tmp_path / "more.nii.gz", "--labels-moving", pair["fixed_labels"])
    assert "In one map only" in done.out
    assert "77" in done.out


def test_no_command_shows_the_help(medwave):
    done = medwave()
    assert done.code == 2
    assert "Usage" in done.err + done.out


def test_a_run_in_a_process_of_its_own_tells_its_stages(pair, tmp_path):
    """Plain lines on stderr where it is no terminal; the report on stdout."""
    script = [sys.executable, "-c", "from medwave.cli.app import main; main()"]
    done = subprocess.run(
        [*script, "register", str(pair["fixed"]), str(pair["moving"]), "-o", str(tmp_path / "run"), *QUICK],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stages = ["read", "affine", "prepare", "refine", "invert", "warp", "write"]
    assert done.stderr.splitlines() == [f"medwave: {stage}" for stage in stages]


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_torch_is_asked_for_large_pages_unless_the_user_says_otherwise(before, after):
    script = (
        "import os, sys\nfrom medwave.cli.app import main\nsys.argv = ['medwave', '--version']\n"
        "try:\n    main()\nfinally:\n    print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    )
    env = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    env |= {} if before is None else {"THP_MEM_ALLOC_ENABLE": before}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == after
