"""The benchmarks of neurons measure what they say: known trees, scores, ranks and tables."""

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from medwave.core.tree import Tree
from medwave.tracing import topology
from medwave.transforms import draw_tubes
from medwave.volumes import read_swc, write_swc

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)  # they are scripts: each finds the others beside it


def y_shape() -> Tree:
    places = np.array([[8.0, 20, 8], [30, 20, 8], [50, 8, 12], [50, 34, 4]])
    return Tree(places, np.full(4, 1.5), np.array([-1, 0, 1, 1]), np.full(4, 2))


def test_spanning_forests_are_the_shortest_ones_and_keep_pieces_apart() -> None:
    methods = import_module("_tracing_methods")
    square = [(0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0)]
    voxels = np.array([*square, (5, 5, 5), (6, 5, 5)])
    parent = methods._spanning_forest(voxels, np.array([3.0, 1.0, 1.0]))
    assert (parent < 0).tolist() == [True, False, False, False, True, False]
    tree = Tree(voxels[:, ::-1] * (1.0, 1.0, 3.0), np.ones(6), parent, np.zeros(6, int))
    assert tree.length == pytest.approx(3 + 3)  # three sides of the square, and one step between slices


def test_edges_become_parents() -> None:
    parent = import_module("_tracing_methods")._hung(5, np.array([[2, 1], [1, 0], [4, 3]]))
    assert parent.tolist() == [-1, 0, 1, -1, 3]


def test_thinning_and_a_spanning_tree_trace_a_y(tmp_path: Path) -> None:
    volume = draw_tubes(y_shape(), (20, 40, 60)).astype(np.uint8) * 200
    volume[15, 2, 2] = 200  # dust
    tifffile.imwrite(tmp_path / "volume.tif", volume, imagej=True, metadata={"axes": "ZYX"})
    request = {"volume": str(tmp_path / "volume.tif"), "kind": "image", "spacing": [1, 1, 1], "threshold": 100}
    cost = import_module("_tracing_methods").run_skeleton({**request, "folder": str(tmp_path)})
    assert cost > 0
    cases = import_module("_tracing_cases")
    tree = cases.read_tree(tmp_path / "tree.npz")
    assert topology(tree).roots == 1
    write_swc(tmp_path / "gold.swc", y_shape(), units="voxels")
    asked = {"gold": str(tmp_path / "gold.swc"), "shape": [20, 40, 60]}
    found = cases.score({**asked, "tree": str(tmp_path / "tree.npz")})
    assert found["f1"] > 0.95
    assert found["esa"] < 1


def test_the_best_threshold_is_the_one_between_haze_and_fibre() -> None:
    mask = draw_tubes(y_shape(), (20, 40, 60))
    haze = draw_tubes(
        Tree(y_shape().positions[:, [1, 0, 2]], np.full(4, 1.0), y_shape().parent, y_shape().kind), (20, 40, 60)
    )
    volume = np.where(mask, 200, np.where(haze, 60, 0)).astype(np.uint8)
    best = import_module("_tracing_cases").best_threshold(volume, y_shape(), (1.0, 1.0, 1.0), 40.0)
    assert 60 <= best < 200


def test_trees_are_scored_within_their_volume_and_a_missing_one_is_the_worst(tmp_path: Path) -> None:
    cases = import_module("_tracing_cases")
    long = Tree(np.array([[5.0, 5, 5], [300, 5, 5]]), np.ones(2), np.array([-1, 0]), np.full(2, 2))
    short = Tree(np.array([[5.0, 5, 5], [29, 5, 5]]), np.ones(2), np.array([-1, 0]), np.full(2, 2))
    for name, tree in (("gold", long), ("trace", short)):
        write_swc(tmp_path / f"{name}.swc", tree, units="voxels")
    asked = {"gold": str(tmp_path / "gold.swc"), "shape": [10, 20, 30]}
    perfect = cases.score({**asked, "tree": str(tmp_path / "trace.swc")})
    assert (perfect["f1"], perfect["esa"], perfect["pds"]) == (1, 0, 0)
    worst = cases.score(asked)
    assert worst["f1"] == worst["recall"] == 0
    assert np.isnan(worst["esa"])


@pytest.mark.data
@pytest.mark.slow
def test_the_renders_are_the_described_ones(data_folder: Path, tmp_path: Path) -> None:
    cases = import_module("_tracing_cases")
    told = {"neurons": str(data_folder / "neurons"), "folder": str(tmp_path)}
    mask = cases.make({**told, "case": "OP_1 perfect mask"})
    voxels, gold = tifffile.imread(tmp_path / "volume.tif"), read_swc(tmp_path / "gold.swc")
    assert voxels.shape == (60, 512, 512)
    assert set(np.unique(voxels)) == {0, 255}
    assert mask["kind"] == "mask"
    assert mask["spacing"] == [3, 1, 1]
    z, y, x = np.rint(gold.positions[:, ::-1]).astype(int).T
    assert voxels[z, y, x].all()
    hard = cases.make({**told, "case": "OP_1 hard"})
    assert 1 < hard["contrast_per_sd"] < 2.5


def run(f1: float, cpu: float = 1.0) -> dict:
    scores = {"f1": f1, "precision": 0.9, "recall": 0.8, "esa": 1.0, "dsa": 2.0, "pds": 0.1}
    return {"cpu_s": cpu + 1, "trace_cpu_s": cpu, "peak_rss_mb": 300.0, "scores": scores}


def test_the_table_has_medians_failures_and_marks_what_is_quoted() -> None:
    table = import_module("_tracing_table")
    failed = {"cpu_s": 90.0, "peak_rss_mb": 1.0, "error": "not finished in 90 s", "scores": {}}
    cases = {"neuron_b": {"runs": {"medwave": [run(0.9, 1), run(0.9, 5), run(0.9, 2)], "skeleton": [failed]}}}
    rows = table.rows({"cases": cases})
    assert rows[0][:5] == ["neuron_b", "medwave", "2.0", "3.0", "300"]
    assert rows[1][2] == "not finished in 90 s"
    assert [row[1] for row in rows[2:]] == ["*APP2, C++ core (quoted)*", "*pyNeuTube (quoted)*"]
    assert all(len(row) == len(table.HEADINGS) for row in rows)


def test_average_precision_of_known_ranks() -> None:
    ranked = import_module("_axons_run").average_precision
    fibre = np.array([0.9, 0.8, 0.7, 0.6, 0.99], np.float32)
    label = np.array([1, 0, 1, 0, 255], np.uint8)  # the best ranked voxel is unknown
    assert ranked(fibre, label) == pytest.approx((1 + 2 / 3) / 2)
    assert ranked(np.array([0.1, 0.9], np.float32), np.array([0, 1], np.uint8)) == 1


class Bright(torch.nn.Module):
    """Says fibre where the scaled image is above 1."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(image), 100 * (image - 1)], dim=1)


def test_labelled_planes_of_all_cubes_are_scored_together() -> None:
    image = np.random.default_rng(0).normal(100, 10, (6, 20, 20)).astype(np.float32)
    label = np.full(image.shape, 255, np.uint8)
    label[[1, 4]] = 0
    label[[1, 4], 9:12] = 1
    image[[1, 4], 9:12] = 2000
    image[3] = 2000  # bright, but nobody labelled this plane
    perfect = import_module("_axons_run").score(Bright(), [(image, label)])
    assert perfect == dict.fromkeys(perfect, 1.0)
    image[4, 9:12] = 100  # half of the fibre is dark
    half = import_module("_axons_run").score(Bright(), [(image, label)])
    assert half["recall"] == pytest.approx(0.5)
    assert half["iou"] == pytest.approx(0.5)
    assert half["cl_precision"] == 1
    assert half["cl_sensitivity"] == pytest.approx(0.5)


def test_epochs_that_are_repeated_after_a_break_count_once(tmp_path: Path) -> None:
    log = import_module("_axons_run").EpochLog
    first = log(tmp_path / "epochs.json")
    first.add(1, 0.5, 0.1)
    first.add(2, 0.4, 0.2)
    again = log(tmp_path / "epochs.json")
    again.add(2, 0.3, 0.3)
    assert [(row["epoch"], row["loss"]) for row in again.rows] == [(1, 0.5), (2, 0.3)]
    assert json.loads((tmp_path / "epochs.json").read_text()) == again.rows


def test_networks_are_compared_seed_by_seed() -> None:
    axons = import_module("axons")

    def one(name, seed, iou):
        return {"network": name, "seed": seed, "parameters": 10, "train_cpu_s": 1.0, "peak_rss_mb": 900.0,
                **dict.fromkeys(axons.COLUMNS, iou)}  # fmt: skip

    results = {"runs": [one("a", 0, 0.3), one("b", 0, 0.2), one("a", 1, 0.5), one("b", 1, 0.6)]}
    assert axons.rows(results)[0][:4] == ["a", "10", "2", "0.400 ± 0.141"]
    assert axons.differences(results)[0].endswith("fibre IoU, seed by seed: +0.100, -0.100")
    assert axons.spread([0.25]) == "0.250"


def test_results_are_written_whole(tmp_path: Path) -> None:
    results = import_module("_results")
    results.save(tmp_path / "new" / "r.json", {"a": 1})
    with pytest.raises(TypeError):
        results.save(tmp_path / "new" / "r.json", {"a": object()})
    assert json.loads((tmp_path / "new" / "r.json").read_text()) == {"a": 1}
    assert set(results.versions(["numpy", "no-such-package", "medwave"])) == {"numpy", "medwave"}
