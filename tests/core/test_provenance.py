"""What a run says about itself: the cost of its stages, its versions, the hashes of its inputs."""

import hashlib
import os
import subprocess
import sys
import time
from importlib import metadata

import numpy as np
import pytest

from medwave.core import provenance
from medwave.core.errors import InputError
from medwave.core.provenance import StageClock, check_unchanged, fingerprint, seen, sha256, versions


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


META, NRRD = "NDims = 3\nElementDataFile = ", "NRRD0004\ndimension: 3\n"


@pytest.mark.parametrize(
    ("name", "header", "data"),
    [
        ("a.mhd", META + "values one.raw\n", ["values one.raw"]),
        ("a.mha", META + "sub/a.raw\r\n", ["sub/a.raw"]),
        ("a.mhd", META + "LIST 2\ns1.raw\ns2.raw\n", ["s1.raw", "s2.raw"]),
        ("a.mhd", META + "s%02d.raw 1 3 2", ["s01.raw", "s03.raw"]),
        ("a.mhd", META + "s%d.raw 1 2", ["s1.raw", "s2.raw"]),
        ("a.nhdr", NRRD + "data file: a.raw.gz\n", ["a.raw.gz"]),
        ("a.nhdr", NRRD + "datafile: ./s%d.raw 2 1 -1 2\n", ["s2.raw", "s1.raw"]),
        ("a.nrrd", NRRD + "data file: LIST\ns1.raw\ns2.raw\n\n", ["s1.raw", "s2.raw"]),
    ],
)
@pytest.mark.parametrize("largest", [provenance.LARGEST_HASHED_BYTES, 5], ids=["small", "large"])
def test_the_data_of_a_header_count(tmp_path, monkeypatch, name, header, data, largest):
    monkeypatch.setattr(provenance, "LARGEST_HASHED_BYTES", largest)
    (tmp_path / name).write_bytes(header.encode())
    alone = fingerprint(tmp_path / name)  # no data: what reads it will say so
    (tmp_path / "sub").mkdir()
    seen = [alone]
    for file in data:
        for values in (b"first", b"second"):
            (tmp_path / file).write_bytes(values)
            seen.append(fingerprint(tmp_path / name))
    assert len({each["sha256"] for each in seen}) == len(seen)
    assert fingerprint(tmp_path / name) == seen[-1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.mha", META.encode() + b"LOCAL\nother.raw"),
        ("a.nrrd", NRRD.encode() + b"\n\xff\ndata file: other.raw\n"),
        ("a.mhd", b"\xff\x00 no header"),
        ("a.mhd", META.encode()),
        ("a.txt", META.encode() + b"other.raw"),
    ],
)
def test_other_files_count_by_their_own_bytes(tmp_path, name, content):
    (tmp_path / "other.raw").write_bytes(b"values")
    (tmp_path / name).write_bytes(content)
    assert fingerprint(tmp_path / name) == {"sha256": hashlib.sha256(content).hexdigest(), "of": "content"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no names that are not UTF-8")
def test_folders_may_hold_names_that_are_not_utf_8(tmp_path):
    (tmp_path / os.fsdecode(b"M\xfcller.tif")).write_bytes(b"1")
    first = fingerprint(tmp_path)
    assert first == fingerprint(tmp_path)
    (tmp_path / os.fsdecode(b"M\xfcller.tif")).rename(tmp_path / "Mueller.tif")
    assert fingerprint(tmp_path) != first


def test_inputs_that_changed_are_refused_and_those_that_are_gone_are_not(tmp_path):
    (tmp_path / "a.txt").write_text("1")
    noted = seen({"fixed": tmp_path / "a.txt"})
    check_unchanged(noted)
    (tmp_path / "a.txt").write_text("2")
    with pytest.raises(InputError, match="changed while it was worked on"):
        check_unchanged(noted)
    (tmp_path / "a.txt").unlink()
    check_unchanged(noted)
