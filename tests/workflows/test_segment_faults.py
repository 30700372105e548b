"""Workers and schedulers that are killed, and a store that stumbles: nothing lost, nothing twice, the same bytes."""

import functools
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from segment_case import as_store, noise_with_lines, several_cubes, stores  # noqa: F401  (a fixture)

import medwave
from medwave.core.errors import ClusterError
from medwave.scale import open_workers
from medwave.volumes import location
from medwave.workflows.segment_store import JOURNAL

SHAPE = (8, 20, 900)
BLOCKS = 8


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return as_store(tmp_path_factory.mktemp("input") / "image.ome.zarr", noise_with_lines(SHAPE))


@pytest.fixture
def run(volume, bright_is_fibre, tmp_path):
    def segment(folder, source=volume, **changes):
        given = {"weights": bright_is_fibre, "threads": 1, "overlap": 16, "shard": 128, "precision": "float32"}
        return medwave.segment(source, tmp_path / folder, **(given | changes))

    return segment


def journal(folder):
    return (folder / JOURNAL).read_text().splitlines()


def test_a_worker_killed_in_the_middle_costs_nothing(run, workers, tmp_path):
    expected = stores(run("one").folder)
    killed = []

    def kill_one(at):
        if at.done and not killed:
            pids = workers.client.run(os.getpid)
            killed.append(pids[sorted(pids)[0]])
            os.kill(killed[0], signal.SIGKILL)

    result = run("out", workers=workers, on_progress=kill_one)
    assert killed
    assert stores(result.folder) == expected
    assert len(journal(result.folder)) == len(set(journal(result.folder))) == BLOCKS


class _Stumbling(http.server.SimpleHTTPRequestHandler):
    """Refuses two requests for the first chunk, once it has been looked at."""

    asked: dict[str, int]

    def do_GET(self):
        if self.path.endswith("/0/0/0/0"):
            self.asked[self.path] = self.asked.get(self.path, 0) + 1
            if self.asked[self.path] in (2, 3):  # the first is that of the statistics
                self.send_error(503, "the store is busy")
                return
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("alone", [False, True])
def test_a_store_that_fails_twice(run, workers, volume, tmp_path, monkeypatch, alone):
    monkeypatch.setattr(location, "WAITS_S", (0.05, 0.1))
    expected = run("one")
    handler = type("Handler", (_Stumbling,), {"asked": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(volume.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        where = {"store": str(tmp_path), "workers": None if alone else workers}
        result = run("out", f"http://127.0.0.1:{server.server_port}/{volume.name}", **where)
    finally:
        server.shutdown()
        server.server_close()
    assert max(handler.asked.values()) > 3
    assert stores(tmp_path) == stores(expected.folder)
    assert result.fibre_voxels == expected.fibre_voxels


def _start(*words):
    return subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_scheduler_killed_and_restarted(run, tmp_path):
    expected = stores(run("one").folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    started = []

    def scheduler():
        host, port = address.split(":")
        started.append(
            _start("distributed.cli.dask_scheduler", "--host", host, "--port", port, "--dashboard-address", ":0")
        )
        time.sleep(0.5)
        return started[-1]

    def worker():
        started.append(_start("distributed.cli.dask_worker", f"tcp://{address}", "--nthreads", "1", "--no-dashboard"))

    try:
        first = scheduler()
        worker()

        def kill(at):
            if at.done:
                first.kill()
                first.wait()

        with pytest.raises(ClusterError, match=r"scheduler is gone|no scheduler answers"):  # noqa: SIM117
            with open_workers(f"tcp://{address}", threads=1) as there:
                run("out", workers=there, on_progress=kill)
        assert 0 < len(journal(tmp_path / "out")) < BLOCKS
        scheduler()
        worker()
        with open_workers(f"tcp://{address}", threads=1) as there:
            result = run("out", workers=there)
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert result.blocks_before > 0
    assert stores(result.folder) == expected
    assert len(journal(result.folder)) == len(set(journal(result.folder))) == BLOCKS
