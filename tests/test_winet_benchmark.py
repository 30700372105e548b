"""The benchmark of WiNet's prediction: the plain build is the same network, and the table is made of the runs."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def beside_the_benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_the_plain_build_predicts_the_same():
    run = import_module("_winet_run")
    pair = run.images((32, 48, 32))
    plain, ours = (run.make(method, 2)(*pair) for method in ("plain", "float32"))
    assert np.abs(ours).max() > 0.1
    np.testing.assert_allclose(plain, ours, rtol=0, atol=1e-4 * np.abs(ours).max())


@pytest.mark.slow
def test_a_run_measures_every_method(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["winet", "--shape", "32,32,32", "--width", "2", "--repeats", "1", "-o", str(tmp_path / "r.json")]
    )
    program = import_module("winet_forward")
    program.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| plain |")
    assert lines[2].count("1.00") == 2
    assert lines[3].startswith("| float32 |")
    assert (tmp_path / "r.json").exists()
