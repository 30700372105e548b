"""``medwave trace``, ``score`` and ``swc`` as a person types them; what is wrong is one line and exit code 2."""

import functools
import http.server
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import tifffile
from cli_cases import listing

from medwave.transforms.neurons import Growth, grow_tree, render_neuron
from medwave.volumes import create_ome_zarr, read_swc, write_swc

SHAPE = (24, 72, 72)
GOOD = "1 1 5 5 5 1 -1\n2 3 9 5 5 1 1\n"


@pytest.fixture(scope="module")
def neuron():
    return render_neuron(grow_tree(SHAPE, Growth(soma_radius=4.0, stems=3), seed=3), SHAPE, seed=3)


@pytest.fixture
def files(neuron, tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", neuron.image, photometric="minisblack", metadata={"axes": "ZYX"})
    write_swc(tmp_path / "gold.swc", neuron.tree)
    return tmp_path


@pytest.mark.parametrize(
    "words", [("trace",), ("score",), ("swc",), ("swc", "check"), ("swc", "fix"), ("swc", "convert")]
)
def test_every_command_explains_itself(medwave, words):
    done = medwave(*words, "--help")
    assert done.code == 0
    assert "Usage" in done.out
    assert not done.err


def test_trace_then_score(medwave, files):
    done = medwave("trace", files / "image.tif", "-o", files / "tree.swc", "--spacing", "1,1,1")
    assert done.code == 0, done.err
    counts, where = done.out.splitlines()
    for word in ("nodes", "tips", "branches", "component", "length", "voxels"):
        assert word in counts
    assert where == f"tree: {files / 'tree.swc'}"
    assert "warning" not in done.err
    done = medwave("score", files / "tree.swc", files / "gold.swc", "--json", files / "scores.json")
    assert done.code == 0, done.err
    for word in ("ESA", "DSA", "PDS", "gold to trace", "precision", "Topology", "DIADEM, simplified"):
        assert word in done.out
    scores = json.loads((files / "scores.json").read_text())
    assert scores["scores"]["f1"] > 0.9
    assert [point["tolerance"] for point in scores["curve"]] == list(range(1, 11))
    assert json.loads(medwave("score", files / "tree.swc", files / "gold.swc", "--json", "-").out) == scores


def test_names_that_are_not_utf_8_are_printed(medwave, tmp_path):
    tree = tmp_path / os.fsdecode(b"M\xfcller.swc")
    tree.write_text(GOOD)
    assert "M\\udcfcller.swc" in medwave("swc", "check", tree).out
    assert json.loads(medwave("swc", "check", tree, "--json", "-").out)[0]["path"] == str(tree)


def test_trace_in_micrometres(medwave, files):
    done = medwave("trace", files / "image.tif", "-o", files / "t.swc", "--units", "um", "--spacing", "2,.5,.5")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].endswith(" um")
    assert (files / "t.swc").read_text().startswith("# units: um\n")


def test_a_missing_trace_is_scored_and_said(medwave, files):
    done = medwave("score", files / "none.swc", files / "gold.swc")
    assert done.code == 0
    assert "none.swc: there is no trace; it counts as the worst" in done.err
    assert "worst" in done.out
    done = medwave("score", files / "none.swc", files / "gold.swc", "--json", "-")
    scores = json.loads(done.out)
    assert scores["scores"]["f1"] == 0
    assert scores["scores"]["esa"] is None
    assert scores["failed"]


def test_check_has_exit_code_1_for_errors_only(medwave, files):
    (files / "warned.swc").write_text("2 3 9 5 5 1 1\n1 1 5 5 5 1 -1\n")
    (files / "broken.swc").write_text("1 1 5 5 5 1 2\n2 3 9 5 nan 1 1\n")
    assert medwave("swc", "check", files / "gold.swc").code == 0
    done = medwave("swc", "check", files / "warned.swc")
    assert done.code == 0
    assert "parent-aft" in done.out
    done = medwave("swc", "check", files / "warned.swc", files / "broken.swc", "--json", "-")
    assert done.code == 1
    warned, broken = json.loads(done.out)
    assert warned["readable"]
    assert not broken["readable"]
    assert {"cycle", "not-finite", "no-root"} <= {f["code"] for f in broken["findings"]}
    assert medwave("swc", "check", files / "broken.swc").code == 1


def test_check_with_the_image(medwave, files):
    medwave("swc", "convert", files / "gold.swc", "-o", files / "flipped.swc", "--flip-y", 72)
    done = medwave("swc", "check", files / "flipped.swc", "--image", files / "image.tif")
    assert done.code == 0
    assert "medwave swc convert --flip-y 72" in done.out


def test_a_volume_may_be_a_url(medwave, files, neuron):
    create_ome_zarr(files / "v.ome.zarr", SHAPE, np.uint8, spacing_um=(1, 1, 1)).write((slice(None),) * 3, neuron.image)
    assert medwave("trace", files / "v.ome.zarr", "-o", files / "here.swc").code == 0
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(files))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/v.ome.zarr"
        done = medwave("trace", url, "-o", files / "there.swc", "--report", files / "page.html")
        assert done.code == 0, done.err
        checked = medwave("swc", "check", files / "there.swc", "--image", url)
        assert (checked.code, checked.out) == (0, f"{files / 'there.swc'}: no finding\n")
    finally:
        server.shutdown()
        server.server_close()
    assert read_swc(files / "there.swc") == read_swc(files / "here.swc")


def test_fix_and_convert(medwave, files):
    (files / "bad.swc").write_text("3 3 9 5 5 1 2\n2 1 5 5 5 1 -1\n9 3 9 7 5 1 -1\n")
    done = medwave("swc", "fix", files / "bad.swc", "-o", files / "good.swc", "--join", 2)
    assert done.code == 0, done.err
    assert "before: 3 nodes, 1 tips, 1 branches, 2 components" in done.out
    assert "after:  3 nodes, 1 tips, 1 branches, 1 component," in done.out
    assert medwave("swc", "check", files / "good.swc", "--single-tree").out == f"{files / 'good.swc'}: no finding\n"
    done = medwave(
        "swc", "convert", files / "good.swc", "-o", files / "um.swc", "--units", "um", "--spacing", "2,.5,.5"
    )
    assert done.code == 0, done.err
    assert np.allclose(read_swc(files / "um.swc").positions[0], (2.5, 2.5, 10))


def cut(path, neuron):
    tifffile.imwrite(path, neuron.image)
    path.write_bytes(path.read_bytes()[:50_000])


BAD_VOLUMES = {
    "missing": (lambda p, n: None, "no such file"),
    "truncated": (cut, "trunc"),
    "not a TIFF": (lambda p, n: p.write_text("hello " * 99), "TIFF"),
    "RGB": (lambda p, n: tifffile.imwrite(p, np.stack([n.image] * 3, -1), photometric="rgb"), "RGB"),
    "2-D": (lambda p, n: tifffile.imwrite(p, n.image[0]), "3-D"),
    "background": (lambda p, n: tifffile.imwrite(p, np.zeros(SHAPE, np.uint8), metadata={"axes": "ZYX"}), "nothing"),
    "constant": (lambda p, n: tifffile.imwrite(p, np.ones(SHAPE, np.uint16), metadata={"axes": "ZYX"}), "nothing"),
}


@pytest.fixture
def refused(medwave, tmp_path):
    """Run a command that must fail: returns its one line, after looking that nothing was left behind."""

    def check(*words):
        before = listing(tmp_path)
        done = medwave(*words)
        assert done.code == 2, done
        assert len(done.errors) == 1, done.err
        assert done.err.splitlines()[-1] == done.errors[0]
        assert not done.out
        assert listing(tmp_path) == before
        return done.errors[0]

    return check


@pytest.mark.parametrize("kind", BAD_VOLUMES)
def test_trace_refuses_volumes(refused, neuron, tmp_path, kind):
    make, rule = BAD_VOLUMES[kind]
    make(tmp_path / "bad_image.tif", neuron)
    line = refused("trace", tmp_path / "bad_image.tif", "-o", tmp_path / "tree.swc")
    assert "bad_image.tif" in line
    assert rule in line


BAD_TREES = {
    "NaN": ("1 1 5 5 nan 1 -1\n2 3 9 5 5 1 1\n", "finite"),
    "cycle": ("1 1 5 5 5 1 -1\n2 3 9 5 5 1 3\n3 3 9 6 5 1 2\n", "circle"),
    "missing parent": ("1 1 5 5 5 1 -1\n2 3 9 5 5 1 7\n", "7, which is not in the file"),
    "few columns": ("1 1 5 5 5 1\n", "seven columns"),
    "words": ("one 1 5 5 5 1 -1\n", "'one'"),
    "binary": ("\0\1\2", "binary"),
}


@pytest.mark.parametrize("command", ["score", "score gold", "fix", "convert"])
@pytest.mark.parametrize("kind", BAD_TREES)
def test_broken_trees_are_refused(refused, tmp_path, kind, command):
    content, rule = BAD_TREES[kind]
    bad, good, out = tmp_path / "bad.swc", tmp_path / "good.swc", tmp_path / "out.swc"
    bad.write_text(content)
    good.write_text(GOOD)
    words = {
        "score": ("score", bad, good),
        "score gold": ("score", good, bad),
        "fix": ("swc", "fix", bad, "-o", out),
        "convert": ("swc", "convert", bad, "-o", out, "--flip-y", 9),
    }[command]
    line = refused(*words)
    assert "bad.swc" in line
    assert rule in line


def test_results_that_cannot_be_written(refused, files):
    (files / "folder").mkdir()
    (files / "good.swc").write_text(GOOD)
    for out, rule in ((files / "folder", "folder"), (files / "none" / "tree.swc", "does not exist")):
        assert rule in refused("trace", files / "image.tif", "-o", out)
        assert rule in refused("swc", "fix", files / "good.swc", "-o", out)
        assert rule in refused("swc", "convert", files / "good.swc", "-o", out, "--flip-y", 9)
    assert "replace its input" in refused("trace", files / "image.tif", "-o", files / "image.tif")


def test_a_folder_without_permission(refused, files, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # an administrator may write everywhere
    assert "may not be written" in refused("trace", files / "image.tif", "-o", files / "tree.swc")


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("trace", "image.tif", "-o", "t.swc", "--spacing", "1,2"), "z,y,x"),
        (("trace", "image.tif", "-o", "t.swc", "--spacing", "1,2,0"), "positive"),
        (("trace", "image.tif", "-o", "t.swc", "--units", "mm"), "mm"),
        (("trace", "image.tif", "-o", "t.swc", "--units", "um"), "--spacing"),
        (("trace", "image.tif", "-o", "t.swc", "--channel", "4"), "channel"),
        (("trace", "image.tif", "-o", "t.swc", "--threshold", "300"), "threshold"),
        (("trace", "image.tif", "-o", "t.swc", "--kind", "mask", "--threshold", "3"), "threshold"),
        (("score", "gold.swc", "gold.swc", "--tolerance", "-1"), "tolerance"),
        (("score", "gold.swc", "gold.swc", "--spacing", "a,b,c"), "z,y,x"),
        (("swc", "convert", "gold.swc", "-o", "t.swc"), "--units"),
        (("swc", "convert", "gold.swc", "-o", "t.swc", "--units", "um"), "--spacing"),
        (("swc", "fix", "gold.swc", "-o", "t.swc", "--join", "-3"), "join"),
        (("swc", "fix", "gold.swc", "-o", "t.swc", "--root", "99999"), "99999"),
        (("swc", "check", "none.swc"), "no such file"),
    ],
)
def test_wrong_options(refused, files, monkeypatch, words, rule):
    monkeypatch.chdir(files)
    assert rule in refused(*words)


@pytest.mark.data
@pytest.mark.slow
def test_a_real_neuron_through_the_command_line(medwave, data_folder, tmp_path):
    folder = data_folder / "neurons" / "real_traced"
    assert medwave("trace", folder / "neuron_b.tif", "-o", tmp_path / "tree.swc").code == 0
    done = medwave("score", tmp_path / "tree.swc", folder / "neuron_b.swc", "--json", "-")
    scores = json.loads(done.out)["scores"]
    assert scores["f1"] >= 0.93
    assert scores["esa"] <= 0.90


def test_trace_with_a_report(medwave, files):
    done = medwave(
        "trace", files / "image.tif", "-o", files / "t.swc", "--report", files / "p.html", "--gold", files / "gold.swc"
    )
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"report: {files / 'p.html'}"
    html = (files / "p.html").read_text(encoding="utf-8")
    assert "--report" in html
    assert "F1 within 2 voxels" in html
    done = medwave("trace", files / "image.tif", "-o", files / "t.swc", "--gold", files / "gold.swc")
    assert done.code == 2
    assert "--report" in done.err


HOLD = "import sys, pathlib; from medwave.core.locks import only_run_on\n"
HOLD += "with only_run_on(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def test_two_traces_to_one_output_do_not_share_its_parts(medwave, files):
    words = ("trace", files / "image.tif", "-o", files / "tree.swc", "--spacing", "1,1,1")
    (files / "tree.swc.parts").mkdir()
    (files / "tree.swc.parts" / "job.json").write_text("{}")  # another run's: would be thrown away
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(files / "tree.swc")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        before = listing(files)
        done = medwave(*words)
        assert done.code == 2
        assert f"tree.swc: process {other.pid} is working on this file; wait for it" in done.errors[0]
        assert listing(files) == before
        assert medwave(*words[:3], files / "another.swc", *words[4:]).code == 0
        other.kill()
    assert medwave(*words).code == 0
    assert sorted(path.name for path in files.iterdir()) == ["another.swc", "gold.swc", "image.tif", "tree.swc"]


def test_a_trace_in_blocks_says_how_far_it_is(medwave, files, monkeypatch):
    words = ("trace", files / "image.tif", "-o", files / "tree.swc", "--spacing", "1,1,1")
    assert medwave(*words).err.splitlines() == ["medwave: trace", "medwave: write"]
    whole = (files / "tree.swc").read_bytes()
    monkeypatch.setattr("medwave.workflows.trace_source._WHOLE_VOXELS", 1000)
    monkeypatch.setattr("medwave.workflows.trace_source._SLAB_VOXELS", 6 * 72 * 72)
    assert medwave(*words).err.splitlines() == [
        "medwave: trace",
        "medwave: look at grey values, 0 of 4 blocks",
        "medwave: look at grey values, 4 of 4 blocks, about 0 s left",
        "medwave: collect foreground, 0 of 4 blocks",
        "medwave: collect foreground, 4 of 4 blocks, about 0 s left",
        "medwave: write",
    ]
    assert (files / "tree.swc").read_bytes() == whole


def test_a_dry_run_of_a_trace_writes_nothing(medwave, files):
    before = listing(files)
    words = ("trace", files / "image.tif", "-o", files / "tree.swc")
    done = medwave(*words, "--dry-run")
    assert done.code == 0, done.err
    facts = dict(line.split(": ", 1) for line in done.out.splitlines())
    assert list(facts) == ["volume", "blocks", "in", "memory"]
    assert facts["volume"].endswith("image.tif, 24 x 72 x 72 voxels (z y x) to trace")
    assert facts["in"].startswith(f"{2 * 24 * 72 * 72 / 1e9:.3g} GB read; grey values once")
    plan = json.loads(medwave(*words, "--dry-run", "--json", "-").out)
    assert plan["bytes_in"] == 2 * 24 * 72 * 72
    assert listing(files) == before
    assert "--dry-run" in medwave(*words, "--json", "-").errors[0]
