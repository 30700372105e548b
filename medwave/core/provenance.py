"""What a run was: versions, hashes of its inputs, and the cost of its stages."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from medwave.core.detached import data_files
from medwave.core.errors import InputError
from medwave.core.files import StrPath

LARGEST_HASHED_BYTES = 1 << 30

_PACKAGES = ("medwave", "torch", "monai", "numpy", "numba", "scipy", "nibabel", "simpleitk", "zarr")


@dataclass(frozen=True)
class Stage:
    """Cost of one step of a run: CPU and wall-clock seconds of this process, peak resident memory so far in MB."""

    name: str
    cpu_s: float
    wall_s: float
    peak_rss_mb: float


@dataclass
class StageClock:
    """Collects the stages of a run in order.

    Attributes:
        told: hears the name of each stage when it begins.
        stages: those that ended.
    """

    told: Callable[[str], None] | None = None
    stages: list[Stage] = field(default_factory=list)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block and append it under ``name``, also when it fails."""
        if self.told:
            self.told(name)
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
            found[package] = _version(package)
    return found


def _version(package: str) -> str:
    """As importlib gives it, which first parses all of a package's description."""
    distribution = metadata.distribution(package)
    stated = re.search(r"^Version: *(.+?) *$", distribution.read_text("METADATA") or "", re.MULTILINE)
    return stated[1] if stated else distribution.version


def sha256(path: StrPath) -> str:
    """Hex digest of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(path: StrPath) -> dict[str, str]:
    """What tells whether an input is still the same: a digest, and of what.

    Of a file up to 1 GiB its bytes; of a larger one its name, size and time of change; of a folder those of all files
    in it, since reading a store of terabytes would take longer than the work. A header of an image counts with the
    files that it names.
    """
    root = Path(path)
    digest = hashlib.sha256()
    if root.is_file() and sum(size for _, size, _ in _listing(root)) <= LARGEST_HASHED_BYTES:
        if not (data := data_files(root)):
            return {"sha256": sha256(root), "of": "content"}
        for file in (root, *data):
            digest.update(sha256(file).encode())
        return {"sha256": digest.hexdigest(), "of": "digests of the header and its data files"}
    for name, size, changed in _listing(root):
        digest.update(f"{name}\0{size}\0{changed}\n".encode("utf-8", "surrogateescape"))
    return {"sha256": digest.hexdigest(), "of": "names, sizes and times of change"}


def seen(files: Mapping[str, StrPath]) -> dict[str, dict[str, str]]:
    """What ``run.json`` notes of inputs by role: path and fingerprint, taken before they are read."""
    return {role: {"path": str(path), **_fingerprint_if_readable(path)} for role, path in files.items()}


def check_unchanged(inputs: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse inputs that are no longer what :func:`seen` told: the work may have read either. Some may be gone.

    Raises:
        InputError: naming the file.
    """
    for entry in inputs.values():
        now = _fingerprint_if_readable(entry["path"]).get("sha256")
        if Path(entry["path"]).exists() and now != entry.get("sha256"):
            raise InputError(f"{entry['path']}: changed while it was worked on; run again and leave it alone meanwhile")


def _fingerprint_if_readable(path: StrPath) -> dict[str, str]:
    try:
        return fingerprint(path)
    except OSError:  # whoever reads it tells why it cannot be read
        return {}


def _listing(root: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of a file and its data files, or of all files below a folder, in order."""
    if root.is_file():
        for file in (root, *data_files(root)):
            yield file.name, file.stat().st_size, file.stat().st_mtime_ns
        return
    for folder, below, names in os.walk(root):
        below.sort()
        for name in sorted(names):
            file = Path(folder, name)
            yield file.relative_to(root).as_posix(), file.stat().st_size, file.stat().st_mtime_ns
