"""What a run was: versions, hashes of its inputs, and the cost of its stages."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from medwave.core.files import StrPath

_PACKAGES = ("medwave", "torch", "monai", "numpy", "numba", "scipy", "nibabel", "simpleitk")


@dataclass(frozen=True)
class Stage:
    """Cost of one step of a run: CPU and wall-clock seconds of this process, peak resident memory so far in MB."""

    name: str
    cpu_s: float
    wall_s: float
    peak_rss_mb: float


@dataclass
class StageClock:
    """Collects the stages of a run in order."""

    stages: list[Stage] = field(default_factory=list)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block and append it under ``name``, also when it fails."""
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            spent = time.process_time() - cpu, time.perf_counter() - wall
            self.stages.append(Stage(name, spent[0], spent[1], peak_rss_mb()))


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MB (10^6 bytes)."""
    with contextlib.suppress(OSError, StopIteration):
        # Linux; getrusage there may count the process that started this one
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # macOS counts bytes, Linux kibibytes


def versions() -> dict[str, str]:
    """Versions of Python, the system and the packages that shape a result."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def sha256(path: StrPath) -> str:
    """Hex digest of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
