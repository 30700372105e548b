"""The runner of batches: order, resume, failures, processes that die, time left."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from medwave.core.errors import InputError
from medwave.workflows.batch import BEFORE, DONE, FAILED, own_names, read_table, run_items, threads_each


@dataclass(frozen=True)
class Work:
    """Writes a file per item; ``bad``, ``odd`` and ``die`` go wrong in three ways."""

    folder: Path

    def name(self, item):
        return f"item {item}"

    def known(self, item):
        path = self.folder / item
        return {"pid": int(path.read_text())} if path.exists() else None

    def run(self, item):
        if item == "bad":
            raise InputError("bad: cannot be done")
        if item == "odd":
            raise ZeroDivisionError("by zero")
        if item == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        (self.folder / item).write_text(str(os.getpid()))
        return {"pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")}


def test_one_process_goes_on_past_failures_and_resumes(tmp_path):
    told = []
    work, items = Work(tmp_path), ["a", "bad", "odd", "b"]
    outcomes = run_items(items, work, on_outcome=lambda o, at: told.append((o.item, at.done, at.total)))
    assert [o.status for o in outcomes] == [DONE, FAILED, FAILED, DONE]
    assert outcomes[1].error == "bad: cannot be done"
    assert outcomes[2].error == "item odd: unexpected ZeroDivisionError: by zero"
    assert outcomes[0].run["pid"] == os.getpid()
    assert told == [("a", 1, 4), ("bad", 2, 4), ("odd", 3, 4), ("b", 4, 4)]
    assert [o.status for o in run_items(["a", "c"], work)] == [BEFORE, DONE]


def test_processes_share_the_work_and_one_that_dies_costs_its_item_only(tmp_path):
    work, items = Work(tmp_path), ["a", "die", "bad", "b", "c", "d"]
    (tmp_path / "c").write_text("7")
    left = []
    outcomes = run_items(items, work, jobs=2, threads=3, on_outcome=lambda _, at: left.append(at.seconds_left))
    assert [o.item for o in outcomes] == items
    assert [o.status for o in outcomes] == [DONE, FAILED, FAILED, DONE, BEFORE, DONE]
    assert "ended with code -9" in outcomes[1].error
    assert "fewer --jobs" in outcomes[1].error
    assert outcomes[4].run == {"pid": 7}
    assert all(o.run["pid"] != os.getpid() and o.run["threads"] == "3" for o in outcomes if o.status == DONE)
    assert left[0] is None  # c was complete before: nothing is known of the time of others
    assert left[-1] == 0


class Stillborn(Work):
    """Kills the process that receives it."""

    def __setstate__(self, _):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_before_it_reads_costs_its_item_only(tmp_path):
    outcomes = run_items(["a", "b"], Stillborn(tmp_path), jobs=2)
    assert [o.status for o in outcomes] == [FAILED, FAILED]
    assert all("ended with code -9" in o.error for o in outcomes)


def test_threads_are_shared_out():
    assert threads_each(3, 8) == 3
    assert threads_each(0, 1) == 0
    assert threads_each(0, 10_000) == 1


def test_jobs_are_one_or_more(tmp_path):
    with pytest.raises(InputError, match="jobs"):
        run_items([], Work(tmp_path), jobs=0)


def test_names_of_their_own():
    assert own_names(["a", "b", "a", "index.html"], taken=["index.html"]) == ["a", "b", "a-2", "index.html-2"]
    with pytest.raises(InputError, match="without any /"):
        own_names(["../a"])


def test_tables(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\ufefffixed,moving,extra\nf.nii, m.nii ,x\n", encoding="utf-8")
    assert read_table(path, ("fixed",), ("fixed", "moving", "name")) == [
        (2, {"fixed": "f.nii", "moving": "m.nii", "name": ""})
    ]
    path.write_text("fixed, moving ,name\t\nf.nii,m.nii,a\n", encoding="utf-8")
    assert read_table(path, ("fixed",), ("fixed", "moving", "name")) == [
        (2, {"fixed": "f.nii", "moving": "m.nii", "name": "a"})
    ]
    with pytest.raises(InputError, match="a column fixed and a column gold"):
        read_table(path, ("fixed", "gold"), ("fixed", "gold"))
    path.write_text("fixed,moving\n,m.nii\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2: names no fixed"):
        read_table(path, ("fixed",), ("fixed",))
    path.write_text("fixed,moving\n\nf.nii,m.nii\n\n\n,m.nii\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 6: names no fixed"):
        read_table(path, ("fixed",), ("fixed",))
