"""Honest cost of a child process, and what machine it ran on. Standard library only: the parent stays small.

A method runs in a child of its own. When it ends, the system says what that child (and any process that it waited
for) used: CPU seconds of user and system together, and the largest resident memory. Every maths library is told its
number of threads before the child starts, since most of them read it only once.

Needs ``os.wait4``: Linux or macOS.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)

_NO_BYTE_CODE = "PYTHONDONTWRITEBYTECODE"
"""Not handed on: an installed package has its byte code on disk, a checkout gets it from its first run."""


@dataclass(frozen=True)
class Cost:
    """What a child process used, and how it ended (0 is well)."""

    cpu_s: float
    wall_s: float
    peak_rss_mb: float
    exit_code: int


def run_measured(arguments: Sequence[str], *, threads: int, log: Path) -> Cost:
    """Run a command and wait for it.

    Args:
        arguments: the command.
        threads: told to all maths libraries through the environment.
        log: receives standard output and error.

    Returns:
        CPU seconds (user and system), wall seconds, peak resident memory in MB (10^6 bytes).
    """
    began = time.perf_counter()
    with log.open("wb") as stream:
        child = subprocess.Popen(arguments, env=_environment(threads), stdout=stream, stderr=subprocess.STDOUT)
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            child.wait()
            raise
    wall = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for: Popen must not do so again
    unit = 1.0 if sys.platform == "darwin" else 1024.0  # macOS counts bytes, Linux kibibytes
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * unit / 1e6, child.returncode)


def last_line(log: Path) -> str:
    """The last line of a log that is not empty: for an error, what went wrong."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def machine() -> dict[str, str | int | float]:
    """Processor, cores, memory and system; no name of the machine or its user."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(memory / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    if info.is_file():
        for line in info.read_text(encoding="ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    numbers = [f"{name} {fields[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in fields]
    return f"{fields['model name']} ({', '.join(numbers)})" if numbers else fields["model name"]


def _environment(threads: int) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != _NO_BYTE_CODE}
    return {**kept, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
