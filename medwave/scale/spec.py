"""The name of a cluster in a word.

``local`` and ``local:N`` are processes on this machine; ``tcp://host:8786`` (and ``tls://``) a Dask scheduler that
runs; ``slurm:FILE.yaml``, ``pbs:FILE.yaml`` and ``lsf:FILE.yaml`` jobs that dask-jobqueue submits. The file holds the
arguments of its ``SLURMCluster``, ``PBSCluster`` or ``LSFCluster`` (cores, memory, queue, walltime, ...) and how many
jobs: ``jobs: 8``, or ``jobs: {minimum: 0, maximum: 64}`` for as many as there is work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medwave.core.errors import InputError
from medwave.core.files import input_file
from medwave.core.optional import require

QUEUES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster"}
"""Queueing systems and their class in dask-jobqueue."""

_SCHEMES = ("tcp://", "tls://", "ucx://", "ws://", "wss://")
_FORMS = "local, local:N, tcp://HOST:PORT, " + ", ".join(f"{kind}:FILE.yaml" for kind in QUEUES)


@dataclass(frozen=True)
class ClusterSpec:
    """Which cluster.

    Attributes:
        kind: "local", "address", or one of :data:`QUEUES`.
        workers: processes of a local cluster; None leaves it to the machine.
        address: of a scheduler.
        minimum, maximum: jobs of a queueing system.
        settings: arguments of the class of dask-jobqueue.
    """

    kind: str
    workers: int | None = None
    address: str = ""
    minimum: int = 1
    maximum: int = 1
    settings: dict[str, Any] = field(default_factory=dict)


def parse_cluster(text: str) -> ClusterSpec:
    """What a word means.

    Raises:
        InputError: when it is none of the forms above, or its file does not fit.
        MissingFileError: when the file is not there.
    """
    kind, _, rest = text.partition(":")
    if text.startswith(_SCHEMES):
        return ClusterSpec("address", address=text)
    if kind == "local":
        if text != "local" and not (rest.isdecimal() and int(rest) > 0):
            raise InputError(f"cluster: local:N names a number of processes of 1 or more, got {text!r}")
        return ClusterSpec("local", workers=int(rest) if rest else None)
    if kind in QUEUES and rest:
        return _queue(kind, Path(rest))
    raise InputError(f"cluster: one of {_FORMS} is needed, got {text!r}")


def _queue(kind: str, path: Path) -> ClusterSpec:
    yaml = require("yaml", extra="scale", purpose=f"submitting jobs to {kind}")
    try:
        settings = yaml.safe_load(input_file(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: a cluster maps settings to values, such as `cores: 8`, one a line")
    missing = [name for name in ("cores", "memory") if name not in settings]
    if missing:
        raise InputError(f"{path}: a job of {kind} has cores and memory; {' and '.join(missing)} is missing")
    minimum, maximum = _jobs(path, settings.pop("jobs", 1))
    return ClusterSpec(kind, minimum=minimum, maximum=maximum, settings=settings)


def _jobs(path: Path, jobs: Any) -> tuple[int, int]:
    low, high = (jobs.get("minimum", 0), jobs.get("maximum")) if isinstance(jobs, dict) else (jobs, jobs)
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in (low, high))
    if not whole or not 0 <= low <= high or high < 1:
        raise InputError(f"{path}: jobs is a number of 1 or more, or {{minimum: A, maximum: B}}, got {jobs!r}")
    return low, high
