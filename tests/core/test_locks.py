"""One run at a time in a folder."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from medwave.core.errors import OutputError
from medwave.core.locks import LOCK, only_run_in, only_run_on

PIPE = subprocess.PIPE
HOLD = "import sys, pathlib; from medwave.core.locks import only_run_in\n"
HOLD += "with only_run_in(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def test_a_second_run_is_refused_and_the_first_one_named(tmp_path):
    with only_run_in(tmp_path):
        with (
            pytest.raises(OutputError, match=f"process {os.getpid()} is working in this folder"),
            only_run_in(tmp_path),
        ):
            pass
        assert (tmp_path / LOCK).is_file()  # the refused one took nothing away
    assert not (tmp_path / LOCK).exists()
    with only_run_in(tmp_path):
        pass


def test_a_killed_run_stops_nobody(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(OutputError, match=f"process {child.pid} "), only_run_in(tmp_path):
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (tmp_path / LOCK).exists()
    with only_run_in(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_goes_when_the_block_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), only_run_in(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_stops_nobody(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("medwave.core.locks.os.pwrite", full)
    with only_run_in(tmp_path), pytest.raises(OutputError, match="another process is working"), only_run_in(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_made_by_one_run_and_others_beside_it_by_others(tmp_path):
    tree = tmp_path / "tree.swc"
    script = HOLD.replace("only_run_in", "only_run_on")
    with subprocess.Popen([sys.executable, "-c", script, str(tree)], stdin=PIPE, stdout=PIPE) as child:
        assert child.stdout.readline() == b"held\n"
        said = rf"tree\.swc: process {child.pid} is working on this file; wait for it, or choose another output file"
        with pytest.raises(OutputError, match=said), only_run_on(tree):
            pass
        with only_run_on(tmp_path / "other.swc"), only_run_in(tmp_path):
            pass
        child.stdin.close()
        assert child.wait() == 0
    with only_run_on(tree):
        assert [path.name for path in tmp_path.iterdir()] == [f"tree.swc{LOCK}"]
    assert list(tmp_path.iterdir()) == []
