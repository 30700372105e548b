"""The benchmarks score and measure what they say: known answers for fields, labels, costs and ratios."""

import json
import subprocess
import sys
from importlib import import_module
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from medwave.core.geometry import Grid, Volume

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SHAPE = (12, 14, 16)
LAS = np.array([[-2.0, 0, 0, 30], [0, 1.0, 0, -5], [0, 0, 3.0, 7], [0, 0, 0, 1]])


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)  # they are scripts: each finds the others beside it


def blocks(shift: int = 0, affine: np.ndarray = LAS) -> Volume:
    """Two structures, 5 and 9, moved along the first axis."""
    data = np.zeros(SHAPE, dtype=np.int16)
    data[4 + shift : 7 + shift, 3:8, 3:6] = 5
    data[4 + shift : 7 + shift, 3:8, 8:12] = 9
    return Volume(data, Grid(SHAPE, affine))


def scored(displacement: np.ndarray | None, fixed: Volume, moving: Volume, structures: list[int]) -> dict[str, float]:
    return import_module("_registration_score").score(
        displacement,
        np.eye(4),
        brain=np.ones(SHAPE, dtype=bool),
        fixed_labels=fixed,
        moving_labels=moving,
        structures=structures,
    )


def test_vectors_in_lps_mm_become_voxels_of_a_flipped_anisotropic_grid() -> None:
    one = np.ones((3, 2, 2, 2))
    voxels = import_module("_registration_score").lps_to_voxels(one, Grid((2, 2, 2), LAS))
    # LPS (1, 1, 1) mm is RAS (-1, -1, 1) mm; the first axis runs to the left in steps of 2 mm, the last in steps of 3
    np.testing.assert_allclose(voxels[:, 0, 0, 0], [0.5, -1.0, 1 / 3], rtol=1e-6)


def test_a_field_in_lps_mm_brings_shifted_labels_home() -> None:
    score = import_module("_registration_score")
    fixed, moving = blocks(), blocks(shift=2)
    lps = np.zeros((3, *SHAPE))
    lps[0] = 4.0  # two voxels of 2 mm along the first axis, which points to L+
    result = scored(score.lps_to_voxels(lps, fixed.grid), fixed, moving, [5, 9])
    assert result["dice_common"] == result["dice_present"] == 1.0
    assert result["folds"] == 0
    assert result["sd_log_jacobian"] == pytest.approx(0.0, abs=1e-6)
    assert scored(None, fixed, moving, [5, 9])["dice_common"] == pytest.approx(1 / 3)  # one of three slices is shared


def test_a_structure_of_one_map_only_counts_as_missed_among_those_present() -> None:
    fixed, moving = blocks(), blocks()
    moving.data[0, 0, 0] = 66
    shifted = np.zeros((3, *SHAPE), dtype=np.float32)
    shifted[:, 0, 0, 0] = 0.6  # the nearest voxel there is now background
    result = scored(shifted, fixed, moving, [5, 9])
    assert result["dice_common"] == 1.0
    assert result["dice_present"] == pytest.approx(2 / 3)


def test_a_planted_fold_and_a_two_part_stretch_have_their_known_figures() -> None:
    fixed = blocks()
    fold = np.zeros((3, *SHAPE), dtype=np.float32)
    fold[0, 6, 7, 8] = 2.5  # slope between neighbours -1.25 behind it: det <= 0 at one voxel
    assert scored(fold, fixed, fixed, [5])["folds"] == 1
    ramp = np.abs(np.arange(SHAPE[0], dtype=np.float32) - 5.5)  # slopes -1 and 1, 0 at the two middle voxels
    stretch = np.zeros((3, *SHAPE), dtype=np.float32)
    stretch[0] = 0.5 * ramp[:, None, None]
    slopes = np.gradient(stretch[0, :, 0, 0])[1:-1]
    expected = np.log1p(slopes).std()
    assert scored(stretch, fixed, fixed, [5])["sd_log_jacobian"] == pytest.approx(expected, rel=1e-5)


def test_a_child_may_keep_byte_code_as_installed_packages_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    measure = import_module("_measure")
    program = "import sys; print(sys.dont_write_bytecode)"
    measure.run_measured([sys.executable, "-c", program], threads=1, log=tmp_path / "log")
    assert measure.last_line(tmp_path / "log") == "False"


LEAN_PARENT = """
import json, sys
from pathlib import Path
from _measure import last_line, run_measured

log = Path(sys.argv[1])
work = "import os, time; b = bytearray(150_000_000)\\nwhile time.process_time() < 0.5: pass\\n"
cost = run_measured([sys.executable, "-c", work + "print(os.environ['OMP_NUM_THREADS'])"], threads=3, log=log)
said = last_line(log)
broken = run_measured([sys.executable, "-c", "raise ValueError('why')"], threads=1, log=log)
print(json.dumps([vars(cost), said, broken.exit_code, last_line(log)]))
"""


def test_the_cost_of_a_child_is_its_own(tmp_path: Path) -> None:
    # from a small process, as the benchmark is: the peak of a child is never below what its parent held when it began
    command = [sys.executable, "-c", LEAN_PARENT, str(tmp_path / "log")]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    cost, said, code, reason = json.loads(done.stdout)
    assert cost["exit_code"] == 0
    assert 0.5 <= cost["cpu_s"] <= min(cost["wall_s"] + 0.2, 2)
    assert 150 <= cost["peak_rss_mb"] <= 200
    assert said == "3"
    assert (code, reason) == (1, "ValueError: why")


def run(cpu: float, dice: float) -> dict[str, float]:
    return {
        "deformable_cpu_s": cpu, "cpu_s": cpu + 2, "peak_rss_mb": 1000.0, "dice_common": dice, "dice_present": dice,
        "folds": 0, "sd_log_jacobian": 0.5,
    }  # fmt: skip


def test_ratios_to_greedy_use_the_pairs_that_both_have_and_leave_failures_out() -> None:
    table = import_module("_registration_table")
    results = {
        "pairs": {
            "a:b": {"runs": {"greedy": [run(40, 0.6)], "medwave": [run(9, 0.61), run(10, 0.61), run(30, 0.61)]}},
            "c:d": {"runs": {"greedy": [{"error": "ended with -9"}], "medwave": [run(500, 0.1)]}},
        }
    }
    found = table.cells(results)
    assert set(found["greedy"]) == {"a:b"}
    against = table.compare(found["medwave"], found["greedy"])
    assert against["pairs"] == 1
    assert against["deformable_ratio"] == pytest.approx(0.25)
    assert against["process_ratio"] == pytest.approx(12 / 40)
    assert against["dice_gain"] == pytest.approx(0.01)


def test_tables_say_the_same_in_a_terminal_and_as_markdown() -> None:
    tables = import_module("_tables")
    grids = [("Mean", ("method", "Dice", "CPU s"), [["greedy", "0.604", "29.0"], ["medwave", "0.626", "7.5"]])]
    console = Console(file=StringIO(), width=80)
    tables.print_tables(grids, ["2 cores"], console)
    page = tables.markdown(grids, ["2 cores"])
    assert page.splitlines() == [
        "- 2 cores", "", "**Mean**", "", "| method | Dice | CPU s |", "| --- | ---: | ---: |",
        "| greedy | 0.604 | 29.0 |", "| medwave | 0.626 | 7.5 |",
    ]  # fmt: skip
    shown = console.file.getvalue()
    assert all(word in shown for word in ("Mean", "method", "greedy", "0.626", "2 cores"))


def test_what_it_costs_to_begin_is_measured_for_every_command(tmp_path: Path) -> None:
    start = import_module("start")
    found = set(start.commands())
    assert {(), ("register",), ("demo",), ("demo", "brains"), ("swc", "check"), ("train", "waveunet")} <= found
    rows = start.measure([("pipelines", "list")])
    assert [row["what"] for row in rows] == ["python -c pass", "import medwave", "medwave pipelines list --help"]
    assert 0 < rows[0]["cpu_s"] < rows[2]["cpu_s"]
    limits = [{"what": "a", "kind": "help", "cpu_s": 1.0}, {"what": "b", "kind": "import", "cpu_s": 0.29}]
    assert start.too_slow([*limits, {"what": "c", "kind": "python", "cpu_s": 9.0}]) == ["a"]
    with pytest.raises(SystemExit, match=r"exit code 3: no"):
        start.least_cpu_s([sys.executable, "-c", "print('no'); raise SystemExit(3)"], tmp_path)


def head_in_two_contrasts() -> tuple[Volume, Volume]:
    """A ball of grey and white around a hollow of fluid: dark in T1, bright in T2."""
    distance = np.linalg.norm(np.indices((72, 72, 72)) - 35.5, axis=0)
    tissue = np.select([distance < 6, distance < 26, distance < 33], [1, 3, 2], 0)
    t1, t2 = (np.array(values, dtype=np.float32)[tissue] for values in ([0, 30, 200, 300], [0, 900, 400, 250]))
    grid = Grid((72, 72, 72), np.eye(4))
    return Volume(t1, grid, "t1"), Volume(t2, grid, "t2")


def test_an_image_takes_the_contrast_of_another_and_keeps_its_own_anatomy() -> None:
    t1, t2 = head_in_two_contrasts()
    shifted = Volume(np.roll(t2.data, 2, axis=0), t2.grid, "t2")  # where its scan lies does not count
    like = np.asarray(import_module("contrasts").in_contrast_of(shifted, t1).data)
    assert (like[t1.data == 0] == 0).all()
    means = [like[t1.data == value].mean() for value in (30, 300, 200)]
    assert [like[t1.data == value].std() < 1e-3 for value in (30, 300, 200)] == [True] * 3  # one intensity, one value
    assert means[0] > means[2] > means[1]  # as in the T2: fluid brightest, then grey, then white


def test_the_outline_of_the_ventricles_is_their_surface() -> None:
    edge = import_module("contrasts").outline(*head_in_two_contrasts())
    distance = np.linalg.norm(np.argwhere(edge) - 35.5, axis=1)
    assert distance.min() > 4
    assert distance.max() < 8
    assert len(distance) > 4 * np.pi * 6**2  # two voxels thick


def test_an_error_is_told_beside_what_the_scans_were_apart_before() -> None:
    contrasts = import_module("contrasts")
    t1, _ = head_in_two_contrasts()
    rng = np.random.default_rng(0)
    texture = np.kron(rng.uniform(0.5, 1.5, (18, 18, 18)), np.ones((4, 4, 4)))
    fixed = Volume((t1.data * texture).astype(np.float32), t1.grid, "fixed")
    apart = Volume(np.roll(fixed.data, 1, axis=0), t1.grid, "apart")  # a scan that lies a voxel beside the other
    step = import_module("medwave.volumes").LinearStep(
        np.array([[1.0, 0, 0, 0], [0, 1, 0, 3], [0, 0, 1, 0], [0, 0, 0, 1]])
    )
    true = import_module("medwave.volumes").SpatialTransform((step,))
    moving = Volume(np.roll(apart.data, 3, axis=1), t1.grid, "moving")
    row = contrasts.Case(fixed, true, t1.data == 30, "fast").measured(moving, apart, deformable=False)
    assert row["before_mm"] == pytest.approx(3.0)
    assert row["error_mm"] == pytest.approx(1.0, abs=0.15)
    assert row["apart_mm"] == pytest.approx(1.0, abs=0.15)
    assert row["repeated_mm"] < 0.15


def test_ventricles_are_outlined_where_each_scan_has_their_edge() -> None:
    """From labels that are too small: a voxel is added all around, whether fluid is dark or bright."""
    t1, t2 = head_in_two_contrasts()
    inner = (np.linalg.norm(np.indices(t1.data.shape) - 35.5, axis=0) < 5).astype(np.uint8)
    atlases = {name: (t1, Volume(inner * np.uint8(label), t1.grid)) for name, label in (("a", 51), ("b", 52))}
    wider = np.where(np.linalg.norm(np.indices(t2.data.shape) - 35.5, axis=0) < 6.5, np.float32(900), t2.data)
    found = import_module("ventricles").ventricles({"T1": t1, "T2": Volume(wider, t2.grid)}, atlases)
    np.testing.assert_array_equal(found["T1"], t1.data == 30)
    np.testing.assert_array_equal(found["T2"], wider == 900)


def test_contrasts_stand_beside_t1_to_t1() -> None:
    of = {"T1": [(1.0, 0.8), (2.0, 0.6)], "T2": [(1.5, 0.7), (2.1, 0.6)], "FLAIR": [(1.0, 0.8), (5.0, 0.3)]}
    rows = [
        {"contrast": name, "distance_mm": mm, "shown_mm": min(mm, 1.2), "dice": dice, "folds": n}
        for name, pairs in of.items() for n, (mm, dice) in enumerate(pairs)
    ]  # fmt: skip
    lines = import_module("ventricles").markdown({"rows": rows}).splitlines()
    assert lines[2] == "| T1 | 2 | 1.50 | 1.00 | 1.00 | 1.10 | 1.00 | 1.00 | 0.700 | 1 |"
    assert lines[3] == "| T2 | 2 | 1.80 | 1.20 | 1.50 | 1.20 | 1.09 | 1.20 | 0.650 | 1 |"
    assert lines[4] == "| FLAIR | 2 | 3.00 | 2.00 | 2.50 | 1.10 | 1.00 | 1.00 | 0.550 | 1 |"


def test_a_learned_start_is_measured_against_the_truth() -> None:
    bench, volumes = import_module("learned_start"), import_module("medwave.volumes")
    t1, _ = head_in_two_contrasts()
    shift = np.eye(4)
    shift[1, 3] = 3.0
    measure = bench._distance(t1, volumes.SpatialTransform((volumes.LinearStep(shift),)))
    field = np.zeros((3, *t1.data.shape), dtype=np.float32)
    field[1] = 3.0
    assert measure(np.eye(4), None)["error_mm"] == pytest.approx(3.0)
    assert measure(shift, None)["error_mm"] == pytest.approx(0.0, abs=1e-9)
    assert measure(np.eye(4), field)["error_mm"] == pytest.approx(0.0, abs=1e-6)


def test_every_state_of_a_pair_is_kept_and_becomes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, volumes = import_module("learned_start"), import_module("medwave.volumes")
    grid = Grid((40, 44, 36), np.diag([4.0, 4.0, 4.0, 1.0]))
    places = (np.indices(grid.shape) - np.array(grid.shape).reshape(3, 1, 1, 1) / 2) / 14
    for name, bend in (("a", 0.0), ("b", 0.12)):
        x, y, z = places + bend * np.sin(2 * places[::-1])
        within = x**2 + y**2 + z**2 < 1
        labels = np.where(within, 1 + (x > 0) + 2 * (y > 0) + 4 * (z > 0), 0).astype(np.int16)
        image = np.where(within, 2 + np.sin(7 * x) * np.sin(6 * y) + np.sin(5 * z), 0).astype(np.float32)
        volumes.write_volume(tmp_path / f"{name}_T1_brain.nii.gz", Volume(image, grid))
        volumes.write_volume(tmp_path / f"{name}_labels.nii.gz", Volume(labels, grid))
    words = ["--images", str(tmp_path), "--pairs", "a:b", "-o", str(tmp_path / "found.json")]
    monkeypatch.setattr("sys.argv", ["learned_start.py", *words])
    bench.main()
    found = json.loads((tmp_path / "found.json").read_text())
    dice = {row["state"]: row["dice"] for row in found["rows"]}
    assert list(dice) == ["affine", "prediction", "fast", "fast from it", "balanced", "balanced from it"]
    assert dice["affine"] < dice["fast"]
    assert dice["affine"] < dice["balanced from it"]
    assert dice["prediction"] != dice["affine"]
    assert all(row["cpu_s"] > 0 for row in found["rows"])
    assert f"| a:b | Dice | {dice['affine']:.4f} | {dice['prediction']:.4f} |" in bench.markdown(found)
    monkeypatch.setattr("sys.argv", ["learned_start.py", "--images", str(tmp_path / "none")])
    with pytest.raises(import_module("_results").BenchmarkError, match=r"no ID_labels\.nii\.gz is there"):
        bench.main()


def test_rows_of_the_gpu_become_tables_and_what_failed_is_left_out() -> None:
    rows = import_module("_registration_gpu_rows")
    scored = {"seconds": 0.1, "dice": 0.61, "first_dice": 0.6, "folds": 0.0}
    text = rows.markdown({
        "gpu": "a card",
        "rows": {
            "transfer": {"copy_gb_s": 2000.0},
            "kernels": scored | {"peak_gb": 0.5, "apart_mean_voxels": 0.001, "apart_max_voxels": 0.02},
            "FireANTs": {"error": "ModuleNotFoundError"},
            "levels": {"1/1": {"shape": [4, 5, 6], "iterations": 3, "ms": 0.9, "floor_mb": 800.0}, "row_s": 1.0},
            "whole": {"cuda": {"seconds": 0.8, "affine": 0.3}, "row_s": 2.0},
            "2 at a time": {"seconds": 4.0, "pairs": 8, "pairs_per_s": 2.0},
        },
    })  # fmt: skip
    assert "| kernels | 0.100 | 0.50 | 0.6000 | 0.6100 | 0.00100 / 0.020 | 0 |" in text
    assert "| 1/1 | 4x5x6 | 3 | 0.900 | 0.400 |" in text
    assert "| cuda | 0.80 | 0.30 |" in text
    assert "| 2 at a time | 2.00 | 8 | 4.00 |" in text
    assert "FireANTs" not in text
