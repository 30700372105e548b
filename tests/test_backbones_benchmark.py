"""The comparison of backbones: intervals and tables say what the rows say, runs are kept whole."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from medwave.transforms.corruptions import CORRUPTIONS


@pytest.fixture
def backbones(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    return import_module("backbones")


def row(wavelet, seed, clean, error):
    errors = {kind: [error] * 5 for kind in CORRUPTIONS}
    rest = dict.fromkeys(("consistency", "fgsm_1", "pgd_1", "pgd_2"), 0.5)
    return {"wavelet": wavelet, "seed": seed, "clean": clean, "errors": errors, "width": 1, "epochs": 2, **rest}


def test_the_interval_is_students(backbones):
    mean, half = backbones.interval(np.array([1.0, 2.0, 3.0]))
    assert mean == 2
    assert half == pytest.approx(4.30265 / np.sqrt(3), rel=1e-5)  # Student's quantile for two degrees of freedom
    assert np.isnan(backbones.interval(np.array([1.0]))[1])


def test_the_table_pairs_runs_of_one_seed(backbones):
    rows = [row("none", 0, 0.5, 0.4), row("haar", 0, 0.6, 0.2), row("none", 1, 0.7, 0.4), row("haar", 1, 0.8, 0.2),
            row("haar", 2, 0.1, 0.9)]  # fmt: skip
    lines = backbones.table(rows)
    assert lines[2].startswith("| none | 2 | 60.0 | 100.0 |")
    assert lines[3].startswith("| haar | 2 | 70.0 (+10.0 ± 0.0) | 50.0 (-50.0 ± 0.0) |")


def test_rows_are_appended(backbones, tmp_path):
    path = tmp_path / "rows.jsonl"
    assert backbones.read_rows(path) == []
    for number in range(2):
        backbones.append_row(path, {"run": number})
    assert [r["run"] for r in backbones.read_rows(path)] == [0, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]
