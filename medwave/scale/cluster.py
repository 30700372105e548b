"""Opening the cluster that a word names, for the time of a job.

Conventions
    A local worker is a process with one task at a time; the processors are shared out among them. Workers that are
    started here declare the resource ``memory`` in bytes, of which a task takes what it says it needs, so that no more
    run at a time than fit. Workers of a scheduler that was there before are left as they were started.
    Jobs of a queueing system end with the command.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
from collections.abc import Iterator
from typing import Any

from medwave.core.errors import ClusterError, InputError
from medwave.core.optional import require
from medwave.scale.spec import QUEUES, ClusterSpec, parse_cluster
from medwave.scale.workers import Workers

DASHBOARD_PORT = 8787
_CORES_EACH = 4
"""Processors of a local worker, where their number was not asked for."""
_PATIENCE = "1 hour"
"""How long a local worker that died may take to start anew before Dask goes on without it; 15 s unless told so."""
_START_S = 300
"""How long the worker of a job may take to find the scheduler before its job ends; 60 s unless told so, too little for
a busy node that loads Python from a shared disk."""


@contextlib.contextmanager
def open_workers(cluster: str | ClusterSpec, *, threads: int = 0, devices: int = 0) -> Iterator[Workers]:
    """The workers of a cluster; what was started here ends with the block.

    Args:
        cluster: as for :func:`medwave.scale.parse_cluster`.
        threads: of one task; 0 shares out the processors of a local machine, and is 1 elsewhere.
        devices: CUDA devices that local workers shall have one each; 0 for none.

    Raises:
        InputError, MissingFileError: when the cluster is named wrongly.
        ClusterError: when it cannot be reached or started.
        MissingPackageError: when Dask is not installed.
    """
    spec = parse_cluster(cluster) if isinstance(cluster, str) else cluster
    distributed = require("distributed", extra="scale", purpose="working on a cluster")
    dask = require("dask", extra="scale", purpose="working on a cluster")
    memory: int | None = None
    with contextlib.ExitStack() as stack:
        if spec.kind == "local":
            count = spec.workers or devices or max(1, processors() // _CORES_EACH)
            memory = _machine_bytes() // count
            stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": _PATIENCE}))
            where: Any = stack.enter_context(_local(distributed, count, memory))
            threads = threads or max(1, processors() // count)
        elif spec.kind == "address":
            where = spec.address
        else:
            memory = _worker_bytes(spec)
            where = stack.enter_context(_queued(spec, threads))
        client = stack.enter_context(_client(distributed, where, spec))
        yield Workers(client, threads=threads or 1, memory_bytes=memory)


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _local(distributed: Any, count: int, memory: int) -> Any:
    try:
        return distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, dashboard_address=f":{_free_port()}",
            resources={"memory": memory}, memory_limit=memory,
        )  # fmt: skip
    except (OSError, RuntimeError, TimeoutError) as error:
        raise ClusterError(f"cluster local:{count}: cannot be started ({error}); try fewer processes") from error


def _queued(spec: ClusterSpec, threads: int) -> Any:
    cluster = _jobs(spec, threads)
    if spec.minimum == spec.maximum:
        cluster.scale(jobs=spec.maximum)
    else:
        cluster.adapt(minimum_jobs=spec.minimum, maximum_jobs=spec.maximum)
    return cluster


def job_script(cluster: str | ClusterSpec, *, threads: int = 0) -> str:
    """What is handed to the queueing system for each job.

    Raises:
        InputError: for a cluster that submits none.
    """
    spec = parse_cluster(cluster) if isinstance(cluster, str) else cluster
    if spec.kind not in QUEUES:
        raise InputError(f"cluster {spec.kind}: submits no jobs; only {', '.join(QUEUES)} do")
    with _jobs(spec, threads) as made:
        return str(made.job_script())


def _jobs(spec: ClusterSpec, threads: int) -> Any:
    """A cluster of dask-jobqueue without any job yet; its scheduler runs here."""
    jobqueue = require("dask_jobqueue", extra="scale", purpose=f"submitting jobs to {spec.kind}")
    made = getattr(jobqueue, QUEUES[spec.kind])
    known = _settings(made) | _settings(made.job_cls)
    if strangers := sorted(spec.settings.keys() - known):
        raise InputError(
            f"cluster {spec.kind}: no setting is called {', '.join(strangers)}; see {made.__name__} of dask-jobqueue"
        )
    settings = {"processes": 1, "death_timeout": _START_S, **spec.settings}
    slots = max(1, int(settings["cores"]) // int(settings["processes"]) // max(1, threads))
    more = ["--resources", f"memory={_worker_bytes(spec)}", "--nthreads", str(slots)]
    settings["worker_extra_args"] = [*settings.get("worker_extra_args", []), *more]
    settings["scheduler_options"] = {"dashboard_address": f":{_free_port()}", **settings.get("scheduler_options", {})}
    try:
        return made(**settings)
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise ClusterError(f"cluster {spec.kind}: cannot be started ({error}); check its settings") from error


def _settings(made: type) -> set[str]:
    """Names that a class of dask-jobqueue and those that it is made of take."""
    return {name for each in made.__mro__[:-1] for name in inspect.signature(each).parameters}


def _worker_bytes(spec: ClusterSpec) -> int:
    """Memory of one worker of a job."""
    from dask.utils import parse_bytes

    return int(parse_bytes(spec.settings["memory"])) // int(spec.settings.get("processes", 1))


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextlib.contextmanager
def _client(distributed: Any, where: Any, spec: ClusterSpec) -> Iterator[Any]:
    try:
        client = distributed.Client(where)
    except (OSError, TimeoutError) as error:
        raise ClusterError(
            f"cluster {spec.address or spec.kind}: no scheduler answers ({error}); start one with `dask scheduler`, or "
            "check the address"
        ) from error
    with client:
        yield client


def _free_port() -> int:
    """The customary port of the dashboard, or 0 (any) when it is taken."""
    with socket.socket() as probe:
        try:
            probe.bind(("", DASHBOARD_PORT))
        except OSError:
            return 0
    return DASHBOARD_PORT
