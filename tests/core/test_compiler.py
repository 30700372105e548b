"""Kernels that are found on disk, in processes of their own: what they bring, and what they can still do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNEL = """
import numpy as np

from medwave.core.compiler import compiler

@compiler()
def double(start, stop, x, out):
    twice = np.zeros(stop)  # brings functions of numba with it
    for i in range(start, stop):
        twice[i] = 2 * x[i]
        out[i] = twice[i]

@compiler(error_model="numpy")
def halve_twice(x):
    return 0.5 * halve(x)

@compiler()
def halve(x):
    return 0.5 * x
"""

PROGRAM = """
import sys
import numba.core.entrypoints
import numpy as np
from kernels_to_load import double, halve_twice

x = np.arange(6, dtype=sys.argv[1])
out = np.zeros_like(x)
double(0, 6, x, out)
assert (out == 2 * x).all(), (x.dtype, out)
compiling = {"numba.np.linalg", "numba.np.arrayobj", "numba.cpython.unicode"} & sys.modules.keys()
print(sum(double.stats.cache_hits.values()), bool(compiling), numba.core.entrypoints._already_initialized)
if sys.argv[2:]:
    assert halve_twice(3.0) == 0.75  # compiled, or loaded, after another kernel was loaded
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "kernels_to_load.py").write_text(KERNEL, encoding="utf-8")
    paths = [str(tmp_path), *filter(None, sys.path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}


def run(environment: dict[str, str], *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_kernel_on_disk_is_loaded_without_the_compiler(environment):
    assert run(environment, "float32") == ["0", "True", "True"]
    assert run(environment, "float32") == ["1", "False", "False"]
    assert run(environment, "float32", "more") == ["1", "False", "False"]  # the second function is compiled after it
    assert run(environment, "float32", "more") == ["1", "False", "False"]
    assert run(environment, "float64") == ["0", "True", "True"]  # another type is another kernel


def test_where_numba_may_not_compile_python_runs(environment):
    environment["NUMBA_DISABLE_JIT"] = "1"
    program = "from kernels_to_load import double as f; x = [1, 2]; f(0, 2, x, x); print([int(v) for v in x])"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.strip() == "[2, 4]"
