"""A disk that is really full: one clear error, nothing that is wrongly trusted, the same bytes at last."""

import contextlib
import shutil
import subprocess

import numpy as np
import pytest
from segment_case import as_store, noise_with_lines, several_cubes, stores  # noqa: F401  (a fixture)

import medwave
from medwave.core.errors import OutputError
from medwave.volumes import open_stack
from medwave.workflows.convert_volume import convert_volume
from medwave.workflows.segment_store import JOURNAL, PROBABILITY

SHAPE = (8, 20, 600)
BLOCKS = 5


@pytest.fixture
def disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    made = subprocess.run(words, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if made is None or made.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.strip() if made else 'there is no mount'}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return as_store(tmp_path_factory.mktemp("input") / "image.ome.zarr", noise_with_lines(SHAPE))


def fill(disk):
    """Take all that is free; returns the file to remove."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1024))
    return ballast


@pytest.mark.parametrize("many", [False, True])
def test_a_segmentation_goes_on_when_there_is_room_again(volume, bright_is_fibre, disk, tmp_path, request, many):
    workers = request.getfixturevalue("workers") if many else None
    given = {"weights": bright_is_fibre, "threads": 1, "overlap": 16, "shard": 128, "precision": "float32"}
    expected = stores(medwave.segment(volume, tmp_path / "whole", **given).folder)
    filled = []

    def listen(at):
        if at.done == 2:
            filled.append(fill(disk))

    with pytest.raises(OutputError, match=r"cannot be written.*No space left"):
        medwave.segment(volume, disk / "out", workers=workers, on_progress=listen, **given)
    assert not (disk / "out" / "run.json").exists()
    journal = (disk / "out" / JOURNAL).read_bytes().decode()
    trusted = [tuple(map(int, line.split())) for line in journal[: journal.rfind("\n") + 1].splitlines()]
    assert 2 <= len(trusted) < BLOCKS
    whole = open_stack(tmp_path / "whole" / PROBABILITY).read()
    written = open_stack(disk / "out" / PROBABILITY).read()
    for _, _, x in trusted:
        np.testing.assert_array_equal(written[..., x : x + 128], whole[..., x : x + 128])
    filled[0].unlink()
    result = medwave.segment(volume, disk / "out", workers=workers, **given)
    assert result.blocks_before == len(trusted)
    assert stores(result.folder) == expected


def test_a_conversion_leaves_nothing_behind(volume, disk, tmp_path):
    expected = convert_volume(volume, tmp_path / "whole.ome.zarr")
    ballast = fill(disk)
    with pytest.raises(OutputError, match=r"cannot be written.*No space left"):
        convert_volume(volume, disk / "new.ome.zarr")
    assert [path.name for path in disk.iterdir()] == ["ballast"]
    ballast.unlink()
    made = convert_volume(volume, disk / "new.ome.zarr")
    for path in sorted(expected.rglob("*")):
        assert path.is_dir() or (made / path.relative_to(expected)).read_bytes() == path.read_bytes()
