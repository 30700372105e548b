"""One run at a time in a folder."""

import os
import signal
import subprocess
import sys

import pytest

from medwave.core.errors import OutputError
from medwave.core.locks import LOCK, only_run_in

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
