"""Atomic writing: the whole file or nothing, and an error that names it."""

import json
import os
import resource
import signal
import stat
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from medwave.core.errors import InputError, MissingFileError, OutputError
from medwave.core.files import atomic_path, check_output, input_file, write_json, write_text


def test_the_file_appears_whole_under_its_name_and_nothing_else_stays(tmp_path):
    target = tmp_path / "a.b.nii.gz"
    with atomic_path(target) as partial:
        assert partial.parent == tmp_path
        assert partial.name.endswith(".nii.gz")
        partial.write_bytes(b"abc")
        assert not target.exists()
    assert target.read_bytes() == b"abc"
    assert list(tmp_path.iterdir()) == [target]


def test_the_file_mode_follows_the_umask_like_any_other_file(tmp_path):
    (tmp_path / "plain").write_text("x")
    write_text(tmp_path / "atomic", "x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")}
    assert len(modes) == 1


@pytest.mark.parametrize("problem", [KeyboardInterrupt, ValueError, MemoryError])
def test_any_failure_keeps_the_older_file_and_removes_the_partial_one(tmp_path, problem):
    target = tmp_path / "result.txt"
    target.write_text("old")

    def interrupted():
        with atomic_path(target) as partial:
            partial.write_text("half")
            raise problem

    with pytest.raises(problem):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_medwave_error_passes_unchanged(tmp_path):
    with pytest.raises(InputError, match="own message"), atomic_path(tmp_path / "x"):
        raise InputError("own message")


def test_a_full_disk_gives_an_output_error_that_names_the_file(tmp_path):
    target = tmp_path / "big.bin"
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_action = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old_limit[1]))  # no file may grow beyond 1000 bytes
    try:
        with pytest.raises(OutputError, match=r"big\.bin: cannot be written .*free space"):
            write_text(target, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_action)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_says_so(tmp_path):
    with pytest.raises(OutputError, match="absent does not exist; create it"):
        write_text(tmp_path / "absent" / "a.txt", "x")


def test_a_folder_in_the_way_is_an_output_error_and_leaves_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="taken: cannot be written"):
        write_text(tmp_path / "taken", "x")
    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    real, link, again = tmp_path / "elsewhere" / "real", tmp_path / "link.json", tmp_path / "again.json"
    real.write_text("old")
    link.symlink_to("elsewhere/real")
    again.symlink_to("link.json")
    with atomic_path(again) as partial:
        assert partial.parent == real.parent
        assert partial.suffix == ".json"
        partial.write_text("new")
        assert real.read_text() == "old"
    assert (link.is_symlink(), again.is_symlink(), real.read_text()) == (True, True, "new")
    assert list(real.parent.iterdir()) == [real]
    real.unlink()
    write_text(link, "made")
    assert (link.is_symlink(), real.read_text()) == (True, "made")


def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe, link, heard = tmp_path / "pipe", tmp_path / "link", []
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for target in (pipe, link):
        check_output(target)
        reader = threading.Thread(target=lambda: heard.append(pipe.read_text()), daemon=True)
        reader.start()
        write_text(target, "said")
        reader.join(10)
    assert heard == ["said", "said"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [link, pipe]


def test_a_pipe_outlives_an_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match=r"pipe: cannot be written"), atomic_path(tmp_path / "pipe"):
        raise OSError("no reader")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_the_longest_legal_name_can_be_written(tmp_path):
    target = tmp_path / ("n" * 251 + ".txt")
    write_text(target, "é")
    assert target.read_text(encoding="utf-8") == "é"


def test_inputs_that_cannot_be_read_are_named(tmp_path):
    assert input_file(__file__) == Path(__file__)
    with pytest.raises(MissingFileError, match=r"gone\.nii: no such file"):
        input_file(tmp_path / "gone.nii")
    with pytest.raises(InputError, match="this is a folder"):
        input_file(tmp_path)


def test_json_takes_numpy_values_paths_and_missing_numbers(tmp_path):
    value = {
        3: np.float32(1.5),
        "a": np.arange(3),
        "p": Path("x") / "y",
        "n": [float("nan"), np.inf],
        "t": (True, None),
    }
    write_json(tmp_path / "v.json", value)
    expected = {"3": 1.5, "a": [0, 1, 2], "p": "x/y", "n": [None, None], "t": [True, None]}
    assert json.loads((tmp_path / "v.json").read_text()) == expected


def test_names_that_are_not_utf_8_are_written_as_escapes_that_json_reads_back(tmp_path):
    name = Path(os.fsdecode(b"M\xfcller.nii.gz"))
    write_json(tmp_path / "v.json", {"path": name})
    assert json.loads((tmp_path / "v.json").read_bytes()) == {"path": str(name)}
    write_text(tmp_path / "v.csv", f"name\n{name}\n")
    assert (tmp_path / "v.csv").read_text(encoding="utf-8") == "name\nM\\udcfcller.nii.gz\n"


def test_json_refuses_what_it_cannot_say_and_writes_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "v.json", {"o": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_name_longer_than_the_system_allows_is_a_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match="no such file"):
        input_file(tmp_path / ("x" * 5000))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc")
def test_what_stdout_goes_to_is_not_replaced(tmp_path):
    log = tmp_path / "log.txt"
    with log.open("a") as stream:
        stream.write("before\n")
        stream.flush()
        (tmp_path / "stdout").symlink_to(f"/proc/{os.getpid()}/fd/{stream.fileno()}")
        for name in (tmp_path / "stdout", Path(f"/proc/{os.getpid()}/fd/{stream.fileno()}")):
            for refuse in (check_output, lambda path: write_text(path, "text")):
                with pytest.raises(OutputError, match="what else that file holds would be lost"):
                    refuse(name)
    assert log.read_text() == "before\n"


def test_contents_that_git_annex_keeps_are_not_written_to(tmp_path):
    kept = tmp_path / ".git" / "annex" / "objects" / "key"
    kept.parent.mkdir(parents=True)
    kept.write_text("old")
    (tmp_path / "a.txt").symlink_to(kept)
    check_output(tmp_path / "a.txt")
    write_text(tmp_path / "a.txt", "new")
    assert kept.read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"
    assert not (tmp_path / "a.txt").is_symlink()
