"""Processes that compile the same functions at once into one empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNEL = """
import numba

@numba.njit(nogil=True, cache=True)
def double(start, stop, x, out):
    for i in range(start, stop):
        out[i] = 2 * x[i]
"""

PROGRAM = """
import sys
import numpy as np
from medwave.core.first_calls import compile_in_turn
from kernel_to_compile import double

x = np.arange(6, dtype=sys.argv[1])
out = np.zeros_like(x)
compile_in_turn(double, x.dtype, x, out)
assert not out.any()
double(0, 6, x, out)
assert (out == 2 * x).all(), (x.dtype, out)
print(sum(double.stats.cache_hits.values()))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "kernel_to_compile.py").write_text(KERNEL, encoding="utf-8")
    paths = [str(tmp_path), *filter(None, sys.path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}


def start(environment: dict[str, str], dtype: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", PROGRAM, dtype], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_processes_that_compile_at_once_leave_a_sound_cache(environment: dict[str, str]) -> None:
    dtypes = ["float32", "float64", "int32", "float32", "int64"]
    first = [start(environment, dtype) for dtype in dtypes]
    hits = [int(child.communicate()[0]) for child in first]
    assert [child.returncode for child in first] == [0] * len(dtypes)
    assert sum(hits) == 1  # the second float32 found what the first had compiled
    again = [start(environment, dtype) for dtype in dtypes]
    assert [int(child.communicate()[0]) for child in again] == [1] * len(dtypes)
    assert [child.returncode for child in again] == [0] * len(dtypes)
