"""What a run says about itself: the cost of its stages, its versions, the hashes of its inputs."""

import hashlib
import subprocess
import sys
import time
from importlib import metadata

import numpy as np
import pytest

from medwave.core.provenance import StageClock, sha256, versions


def test_stages_are_measured_in_order():
    clock = StageClock()
    with clock.stage("sleep"):
        time.sleep(0.05)
    with clock.stage("work"):
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
    sleep, work = clock.stages
    assert [sleep.name, work.name] == ["sleep", "work"]
    assert sleep.wall_s >= 0.05 > sleep.cpu_s
    assert work.cpu_s >= 0.05
    assert work.wall_s >= work.cpu_s * 0.9
    assert work.peak_rss_mb >= sleep.peak_rss_mb > 10


def test_a_stage_is_told_before_it_begins():
    told = []
    clock = StageClock(told.append)
    with clock.stage("read"):
        assert told == ["read"]
        assert not clock.stages
    with clock.stage("write"):
        pass
    assert told == [stage.name for stage in clock.stages] == ["read", "write"]


def test_a_failed_stage_is_kept():
    clock = StageClock()
    with pytest.raises(ValueError, match="broken"), clock.stage("read"):
        raise ValueError("broken")
    assert [stage.name for stage in clock.stages] == ["read"]


def test_the_peak_counts_bytes_by_the_million():
    program = """
import numpy as np
from medwave.core.provenance import peak_rss_mb
before = peak_rss_mb()
block = np.ones(30_000_000)  # 240 MB
during = peak_rss_mb()
del block
print(during - before, peak_rss_mb() - during)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    rise, fall = map(float, done.stdout.split())
    assert 230 < rise < 260
    assert fall > -5  # the peak stays, to the rounding of the system


def test_versions_are_those_that_are_installed():
    found = versions()
    assert found["numpy"] == np.__version__
    assert found["medwave"] == metadata.version("medwave")
    assert {"python", "system", "torch", "numba", "nibabel"} <= set(found)


def test_known_digests(tmp_path):
    empty, text, large = tmp_path / "empty", tmp_path / "text", tmp_path / "large"
    empty.write_bytes(b"")
    text.write_bytes(b"abc")
    content = bytes(range(256)) * 5000
    large.write_bytes(content)
    assert sha256(empty) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256(str(text)) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(large) == hashlib.sha256(content).hexdigest()
