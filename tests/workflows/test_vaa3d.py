"""Vaa3D as the tracer: what it is called with, what becomes of its tree, and what is said when it is not there.

The program on the PATH is a small script: it tests our calling, not Vaa3D's tracing.
"""

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from medwave.core.errors import InputError, MissingProgramError
from medwave.volumes import open_stack, read_swc, read_swc_comments, read_swc_units
from medwave.workflows.trace import trace_file

SHAPE = (6, 20, 30)
LINE = 8  # y of the fibre

PROGRAM = f"""#!{sys.executable}
import sys
from pathlib import Path
words = sys.argv[1:]
Path("called.txt").write_text("\\n".join(words))
given = dict(zip(words[0:8:2], words[1:8:2]))
assert given["-x"] == "vn2" and given["-f"] == "app2", words
volume, output = Path(given["-i"]), Path(given["-o"])
header = volume.read_bytes()[:43]
x, y, z, c = (int.from_bytes(header[27 + 4 * n:31 + 4 * n], "little") for n in range(4))
voxels = volume.read_bytes()[43:]
assert len(voxels) == x * y * z * c
at = voxels.index(max(voxels))  # the first bright voxel, x fastest
rows = [f"{{n + 1}} 18 {{at % x + n}} {{at // x % y}} {{at // x // y}} 1.5 {{n or -1}}" for n in range(10)]
output.write_text("# made by a script\\n" + "\\n".join(rows) + "\\n")
"""


@pytest.fixture
def volume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = np.full(SHAPE, 10, np.uint16)
    image[2, LINE, 4:25] = 900
    tifffile.imwrite(
        "image.tif", image, imagej=True, metadata={"axes": "ZYX", "spacing": 2.0, "unit": "um"}, resolution=(1, 1)
    )
    return tmp_path / "image.tif"


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """Put a program of the name vaa3d on the PATH, and nothing else."""

    def put(text):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        if text is not None:
            (folder / "vaa3d").write_text(text)
            (folder / "vaa3d").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return put


def test_its_tree_comes_back_in_our_voxels_and_types(volume, on_path, tmp_path):
    on_path(PROGRAM)
    tree = trace_file(volume, tmp_path / "tree.swc", tracer="vaa3d", shortest_segment=3.0)
    np.testing.assert_allclose(tree.positions[[0, -1]], [(4, LINE, 2), (13, LINE, 2)])
    assert read_swc(tmp_path / "tree.swc") == tree
    assert (tree.kind == 0).all()
    assert read_swc_units(tmp_path / "tree.swc") == "voxels"
    assert any("traced by vaa3d" in line for line in read_swc_comments(tmp_path / "tree.swc"))
    words = (tmp_path / "called.txt").read_text().splitlines()
    parameters = words[words.index("-p") + 1 :]
    assert parameters[:2] == ["NULL", "0"]
    assert 0 < int(parameters[2]) < 255
    assert parameters[3:] == ["1", "1", "0", "0", "3"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bin", "called.txt", "image.tif", "tree.swc"]


def test_what_else_lies_in_its_folder_stays(volume, on_path, tmp_path):
    on_path(PROGRAM)
    (tmp_path / "tree_vaa3d").mkdir()
    (tmp_path / "tree_vaa3d" / "by_hand.swc").write_text("1 0 4 8 2 1 -1\n")
    trace_file(volume, tmp_path / "tree.swc", tracer="vaa3d", shortest_segment=3.0)
    assert [p.name for p in (tmp_path / "tree_vaa3d").iterdir()] == ["by_hand.swc"]


def test_a_root_becomes_a_marker_that_counts_from_one_and_units_are_ours(volume, on_path, tmp_path):
    keep = 'Path("marker.txt").write_text(Path(words[words.index("-p") + 1]).read_text())\n'
    on_path(PROGRAM + keep)
    tree = trace_file(volume, tmp_path / "tree.swc", tracer="vaa3d", root=(2.0, 8.0, 4.0), units="um")
    assert (tmp_path / "marker.txt").read_text().splitlines()[1].startswith("5,9,3,")
    np.testing.assert_allclose(tree.positions[0], (4, LINE, 4))  # slices are 2 um apart


def test_a_mask_and_a_threshold_are_handed_on(volume, on_path, tmp_path):
    on_path(PROGRAM)
    trace_file(volume, tmp_path / "tree.swc", tracer="vaa3d", threshold=455.0)
    words = (tmp_path / "called.txt").read_text().splitlines()
    assert words[words.index("-p") + 3] == "127"  # half way from 10 to 900


def test_without_the_program_the_command_is_shown_and_its_files_are_there(volume, on_path, tmp_path):
    on_path(None)
    with pytest.raises(MissingProgramError, match="vaa3d is not on the PATH") as caught:
        trace_file(volume, tmp_path / "tree.swc", tracer="vaa3d", root=(2.0, 8.0, 4.0))
    command = str(caught.value).partition("or run: ")[2].partition(" && ")[0]
    words = shlex.split(command)
    assert words[:5] == ["vaa3d", "-x", "vn2", "-f", "app2"]
    with open_stack(words[words.index("-i") + 1]) as opened:
        grey = opened.read()
    assert grey.dtype == np.uint8
    assert (grey[2, LINE, 4:25] == 255).all()
    assert (grey == 0).sum() == grey.size - 21
    assert "##x,y,z" in Path(words[words.index("-p") + 1]).read_text()
    assert not (tmp_path / "tree.swc").exists()
    on_path(PROGRAM)
    assert len(trace_file(volume, tmp_path / "tree.swc", tracer="vaa3d")) > 1
    assert not (tmp_path / "tree_vaa3d").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"#!{sys.executable}\nimport sys\nsys.exit('no licence')\n", "exit code 1, it said: no licence"),
        (f"#!{sys.executable}\nprint('nothing found')\n", "exit code 0, it said: nothing found"),
    ],
)
def test_a_program_that_fails_is_quoted(volume, on_path, tmp_path, text, said):
    on_path(text)
    with pytest.raises(InputError, match=said) as caught:
        trace_file(volume, tmp_path / "tree.swc", tracer="vaa3d")
    assert str(volume) in str(caught.value)
    assert not (tmp_path / "tree.swc").exists()
    assert (tmp_path / "tree_vaa3d" / "volume.v3draw").exists()
