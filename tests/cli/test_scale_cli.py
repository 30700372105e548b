"""``--cluster`` as a person types it."""

import subprocess
import sys

import dask
import distributed  # noqa: F401  brings its configuration
import numpy as np
import pytest
import tifffile
from cli_cases import QUICK, write_pair


@pytest.fixture
def volume(tmp_path):
    image = np.random.default_rng(0).normal(100, 10, (16, 40, 200))
    image[6:9, 10:13, :] += 150
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, image.clip(0).astype(np.uint16), metadata={"axes": "ZYX"}, photometric="minisblack")
    return path


def test_segment_on_a_cluster_of_others(medwave, workers, volume, bright_is_fibre, tmp_path):
    address = workers.client.scheduler.address
    words = ("segment", volume, "--weights", bright_is_fibre, "--threads", 1, "--precision", "float32")
    done = medwave(*words, "-o", tmp_path / "out", "--cluster", address)
    assert done.code == 0, done.err
    assert "medwave: dashboard: http" in done.err
    assert "Mvoxel/s" in done.err
    alone = medwave(*words, "-o", tmp_path / "alone")
    assert done.out.replace("/out/", "/alone/") == alone.out
    for path in (tmp_path / "alone" / "mask.ome.zarr").rglob("*"):
        if path.is_file() and path.name != ".zattrs":
            assert (tmp_path / "out" / path.relative_to(tmp_path / "alone")).read_bytes() == path.read_bytes()


def test_unusable_clusters_are_one_line(medwave, volume, tmp_path, monkeypatch):
    monkeypatch.setitem(dask.config.config["distributed"]["comm"]["timeouts"], "connect", "1s")
    for word, rule in (("cloud", "local:N"), ("slurm:none.yaml", "no such file"), ("tcp://127.0.0.1:9", "scheduler")):
        done = medwave("segment", volume, "-o", tmp_path / "out", "--cluster", word)
        assert done.code == 2
        assert rule in done.errors[0]
    assert not (tmp_path / "out").exists()


def test_dask_is_imported_for_a_cluster_only():
    program = (
        "import sys, medwave.cli.app, medwave.scale, medwave.workflows.segment, medwave.workflows.cohort\n"
        "print([m for m in ('dask', 'distributed', 'fsspec', 's3fs', 'upath') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_a_dry_run_says_what_it_takes_and_writes_nothing(medwave, workers, volume, bright_is_fibre, tmp_path):
    for words in ((), ("--cluster", workers.client.scheduler.address)):
        done = medwave("segment", volume, "-o", tmp_path / "out", "--weights", bright_is_fibre, "--dry-run", *words)
        assert done.code == 0, done.err
        facts = dict(line.split(": ", 1) for line in done.out.splitlines())
        assert list(facts) == ["volume", "tasks", "cubes", "in", "memory", "probe", "expected"]
        assert facts["tasks"].startswith("1, of 2 blocks")
        assert "hours" in facts["expected"]
    assert not (tmp_path / "out").exists()


def test_batch_on_a_cluster(medwave, workers, tmp_path):
    paths = write_pair(tmp_path)
    rows = ["fixed,moving", f"{paths['fixed'].name},{paths['moving'].name}", f"{paths['fixed'].name},none.nii.gz"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    words = ("batch", tmp_path / "pairs.csv", "-o", tmp_path / "out", *QUICK)
    done = medwave(*words, "--cluster", workers.client.scheduler.address)
    assert done.code in (1, 2), done.err
    (tmp_path / "pairs.csv").write_text("\n".join(rows[:2]) + "\n")
    done = medwave(*words, "--cluster", workers.client.scheduler.address)
    assert done.code == 0, done.err
    assert (tmp_path / "out" / "index.html").exists()


def test_convert_volume(medwave, volume, tmp_path):
    done = medwave("convert-volume", volume, "-o", tmp_path / "x.ome.zarr", "--shard", 128)
    assert (done.code, done.out) == (0, f"volume: {tmp_path / 'x.ome.zarr'}\n")
    done = medwave("convert-volume", volume, "-o", tmp_path / "x.ome.zarr")
    assert done.code == 2
    assert "exists already" in done.errors[0]
