"""A cohort on a cluster: the same files as in one process, failures listed, complete pairs passed over."""

import csv
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from test_cohort import QUICK, statuses, write_cohort

from medwave.core.errors import InputError
from medwave.workflows.batch import BEFORE, DONE, FAILED, run_items
from medwave.workflows.cohort import register_cohort, registration_bytes
from medwave.workflows.cohort_items import cohort_pairs


class Squares:
    """Work that fails in all the ways there are."""

    def __init__(self, folder):
        self.folder = folder

    def name(self, item):
        return f"item {item}"

    def known(self, item):
        return {"value": 1} if item == 1 else None

    def run(self, item):
        if item == 2:
            raise InputError("item 2: of no use")
        if item == 3:
            raise RuntimeError("a fault of ours")
        if item == 4 and not (mark := Path(self.folder) / "died").exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"value": item * item}


def test_items_that_fail_or_lose_their_worker(workers, tmp_path):
    seen = []
    outcomes = run_items(
        range(6),
        Squares(str(tmp_path)),
        workers=workers,
        memory_bytes=[1] * 6,
        on_outcome=lambda o, at: seen.append(at),
    )
    assert [outcome.item for outcome in outcomes] == list(range(6))
    assert statuses(outcomes) == [DONE, BEFORE, FAILED, FAILED, DONE, DONE]
    assert [outcome.run.get("value") for outcome in outcomes] == [0, 1, None, None, 16, 25]
    assert outcomes[2].error == "item 2: of no use"
    assert outcomes[3].error == "item 3: RuntimeError: a fault of ours (tried 4 times)"
    assert [at.done for at in seen] == [1, 2, 3, 4, 5, 6]


def test_the_same_files_as_in_one_process(workers, tmp_path, monkeypatch):
    write_cohort(tmp_path, 3)
    (tmp_path / "b2.nii.gz").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    items = cohort_pairs("pairs.csv")
    register_cohort(items, "one", options=QUICK)
    first = register_cohort(items, "many", options=QUICK, workers=workers)
    assert statuses(first) == [DONE, FAILED, FAILED]
    with (tmp_path / "many/failed.csv").open(newline="") as stream:
        assert ["b2.nii.gz" in row["error"] for row in csv.DictReader(stream)] == [True, True]
    made = [p for p in (tmp_path / "one/runs").rglob("*") if p.is_file() and p.suffix in (".gz", ".tfm", ".jpg")]
    assert len(made) > 2
    for path in made:
        assert (tmp_path / "many" / path.relative_to(tmp_path / "one")).read_bytes() == path.read_bytes()
    assert statuses(register_cohort(items, "many", options=QUICK, workers=workers)) == [BEFORE, FAILED, FAILED]


def test_memory_grows_with_the_images(tmp_path):
    write_cohort(tmp_path, 2)
    first, _ = cohort_pairs(tmp_path / "pairs.csv")
    small = registration_bytes(first)
    assert small == pytest.approx(500e6 + 60 * 2 * np.prod((20, 22, 18)))
    (tmp_path / "b0.nii.gz").write_bytes(b"no image")
    assert registration_bytes(first) > 2 * small
