"""``medwave segment`` and ``reconstruct`` as a person types them; what is wrong is one line and exit code 2."""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
from cli_cases import listing

from medwave.models import WiNet, save_weights, shipped_weights
from medwave.transforms.neurons import Growth, grow_tree, render_neuron
from medwave.volumes import create_ome_zarr, open_stack, write_swc, write_v3draw

SHAPE = (24, 72, 72)


@pytest.fixture(scope="module")
def neuron():
    return render_neuron(grow_tree(SHAPE, Growth(soma_radius=4.0, stems=3), seed=3), SHAPE, seed=3)


@pytest.fixture
def files(neuron, tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", neuron.image, photometric="minisblack", metadata={"axes": "ZYX"})
    write_swc(tmp_path / "gold.swc", neuron.tree)
    return tmp_path


def test_segment_says_its_rule_and_its_results(medwave, files, bright_is_fibre):
    done = medwave("segment", "--help")
    assert "4x4x4" in done.out
    done = medwave("segment", files / "image.tif", "-o", files / "out", "--weights", bright_is_fibre)
    assert done.code == 0, done.err
    first, *paths = done.out.splitlines()
    assert first.startswith("1 blocks; 1 cubes predicted, 0 empty; ")
    assert paths == [f"probability: {files / 'out/probability.ome.zarr'}", f"mask: {files / 'out/mask.ome.zarr'}"]
    assert "medwave: segment, 0 of 1 blocks\n" in done.err
    assert "medwave: segment, 1 of 1 blocks, about 0 s left\n" in done.err
    done = medwave("segment", files / "image.tif", "-o", files / "out", "--weights", bright_is_fibre)
    assert done.out.startswith("1 blocks, 1 of them by an earlier run; 0 cubes predicted")
    words = ("segment", files / "image.tif", "-o", files / "out", "--weights", bright_is_fibre)
    piped = medwave(*words, "--json", "-")
    assert json.loads(piped.out) == json.loads((files / "out" / "run.json").read_text())
    plan = json.loads(medwave(*words, "--dry-run", "--json", "-").out)
    assert plan["shape"] == list(SHAPE)
    assert (plan["tasks"], plan["cubes"]) == (1, 1)
    (named,) = json.loads(medwave("reconstruct", *words[1:], "--dry-run", "--json", "-").out)
    assert named["volume"] == str(files / "image.tif")
    assert named["cubes"] == 1


def test_reconstruct_with_gold(medwave, files, bright_is_fibre):
    words = ("reconstruct", files / "image.tif", "-o", files / "out", "--weights", bright_is_fibre)
    done = medwave(*words, "--gold", files / "gold.swc", "--spacing", "1,1,1")
    assert done.code == 0, done.err
    assert "nodes" in done.out
    assert "precision" in done.out
    assert "warning" not in done.err
    record = json.loads((files / "out" / "run.json").read_text())
    assert record["command"].startswith("medwave reconstruct")
    assert medwave("score", files / "out" / "tree.swc", files / "gold.swc").code == 0
    piped = medwave(*words, "--gold", files / "gold.swc", "--spacing", "1,1,1", "--json", "-")
    again = json.loads((files / "out" / "run.json").read_text())
    assert json.loads(piped.out) == again
    assert {name: again[name] for name in ("tree", "scores")} == {name: record[name] for name in ("tree", "scores")}


def test_a_batch_with_a_bad_volume_ends_with_1(medwave, files, bright_is_fibre):
    (files / "bad.tif").write_text("not a TIFF")
    words = ("reconstruct", files / "bad.tif", files / "image.tif", "-o", files / "all", "--weights", bright_is_fibre)
    done = medwave(*words)
    assert done.code == 1
    assert "failed: " in done.err
    assert "bad.tif" in done.err
    assert "1 of 2 volumes failed" in done.err
    assert "complete" not in done.out
    assert (files / "all" / "image" / "tree.swc").exists()
    (files / "bad.tif").write_bytes((files / "image.tif").read_bytes())
    done = medwave(*words)
    assert done.code == 0, done.err
    assert "complete before" in done.out
    written = medwave(*words, "--json", files / "rows.json")
    assert written.out.splitlines()[-1] == done.out.splitlines()[-1]
    (files / "bad.tif").write_text("not a TIFF")
    piped = medwave(*words, "--json", "-")
    assert piped.code == 1
    bad, good = json.loads(piped.out)
    assert good == json.loads((files / "rows.json").read_text())[1]
    assert (good["name"], good["status"], bad["status"], bad["length"]) == ("image", "complete before", "failed", None)
    assert good["length"] > 0
    assert "bad.tif" in bad["error"]


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


def cut(path, image):
    tifffile.imwrite(path, image)
    path.write_bytes(path.read_bytes()[:50_000])


def wrong_size(path, image):
    write_v3draw(path, image)
    content = bytearray(path.read_bytes())
    struct.pack_into("<i", content, 27, 999)  # X
    path.write_bytes(content)


def wrong_magic(path, image):
    write_v3draw(path, image)
    path.write_bytes(b"raw_image_stack_by_nobody" + path.read_bytes()[25:])


def of_values(value, dtype=np.uint8):
    return lambda path, image: tifffile.imwrite(path, np.full(SHAPE, value, dtype), metadata={"axes": "ZYX"})


def store(path, image):
    create_ome_zarr(path, SHAPE, np.uint16)


BAD_VOLUMES = {
    "missing": ("bad.tif", lambda p, i: None, "no such file"),
    "truncated": ("bad.tif", cut, "trunc"),
    "wrong magic": ("bad.v3draw", wrong_magic, "not a v3draw"),
    "header and size differ": ("bad.v3draw", wrong_size, "truncated"),
    "complex numbers": ("bad.tif", of_values(1, np.complex64), "integers or floats"),
    "RGB": ("bad.tif", lambda p, i: tifffile.imwrite(p, np.stack([i] * 3, -1), photometric="rgb"), "RGB"),
    "2-D": ("bad.tif", lambda p, i: tifffile.imwrite(p, i[0]), "3-D"),
    "empty": ("bad.v3draw", lambda p, i: p.write_bytes(b"raw_image_stack_by_hpengL\1\0" + bytes(16)), "empty"),
    "background": ("bad.tif", of_values(0), "it is empty"),
    "constant": ("bad.tif", of_values(9), "it is empty"),
    "nothing stored": ("bad.ome.zarr", store, "it is empty"),
    "NaN": ("bad.tif", of_values(np.nan, np.float32), "NaN"),
    "unknown ending": ("bad.xyz", lambda p, i: p.write_text("x"), "convert it"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["segment", "reconstruct"])
@pytest.mark.parametrize("kind", BAD_VOLUMES)
def test_volumes_are_refused(refused, neuron, bright_is_fibre, tmp_path, kind, command):
    name, make, rule = BAD_VOLUMES[kind]
    make(tmp_path / name, neuron.image)
    line = refused(command, tmp_path / name, "-o", tmp_path / "new" / "out", "--weights", bright_is_fibre)
    assert name in line
    assert rule in line


def test_weights_are_taken_by_their_name(medwave, refused, files, monkeypatch):
    monkeypatch.chdir(files)
    done = medwave("reconstruct", files / "image.tif", "-o", files / "out", "--weights", "neuron")
    assert done.code == 0, done.err
    record = json.loads((files / "out" / "run.json").read_text())
    assert record["weights"]["path"] == str(shipped_weights("neuron"))
    words = ("segment", files / "image.tif", "--weights", "neuron", "-o", files / "out")
    assert medwave(*words).out.startswith("1 blocks, 1 of them by an earlier run; 0 cubes predicted")
    assert json.loads(medwave(*words, "--dry-run", "--json", "-").out)["cubes"] == 1
    for command in ("segment", "reconstruct"):
        line = refused(command, files / "image.tif", "-o", files / "new", "--weights", "neurone")
        assert "neurone: there is no such weight file; weights that come with medwave are called neuron, " in line


def test_weights_are_refused(refused, files, bright_is_fibre):
    save_weights(WiNet(), files / "winet.safetensors")
    (files / "hostile.pt").write_bytes(b"\x80\x04cposix\nsystem\n(S'touch stolen'\ntR.")
    (files / "cut.safetensors").write_bytes(bright_is_fibre.read_bytes()[:900])
    for name, rule in {
        "winet.safetensors": "WiNet", "hostile.pt": "can run code", "cut.safetensors": "safetensors",
        "none.safetensors": "no such weight file; weights that come with medwave are called neuron, ",
    }.items():  # fmt: skip
        line = refused("segment", files / "image.tif", "-o", files / "out", "--weights", files / name)
        assert name in line
        assert rule in line


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--region", "0:9"), "z0:z1,y0:y1,x0:x1"),
        (("--region", "0:99,:,:"), "lie within"),
        (("--threshold", "2"), "threshold"),
        (("--device", "cuda:99"), "not usable"),
        (("--precision", "float16"), "float16"),
        (("--threads", "-1"), "threads"),
        (("--channel", "3"), "channel"),
        (("--spacing", "1,1"), "z,y,x"),
    ],
)
def test_options_are_refused(refused, files, bright_is_fibre, words, rule):
    assert rule in refused("segment", files / "image.tif", "-o", files / "out", "--weights", bright_is_fibre, *words)


def test_folders_are_refused(refused, files, bright_is_fibre, monkeypatch):
    words = ("segment", files / "image.tif", "--weights", bright_is_fibre, "-o")
    assert "cannot be used as an output folder" in refused(*words, files / "image.tif")
    (files / "held").mkdir()
    create_ome_zarr(files / "held" / "mask.ome.zarr", SHAPE, np.uint8)
    assert "choose another folder" in refused(*words, files / "held")
    gold = ("--gold", files / "gold.swc")
    assert "table" in refused("reconstruct", *[files / "image.tif"] * 2, "-o", files / "o", *gold)


def test_a_full_disk_loses_nothing(medwave, files, bright_is_fibre):
    """Files may not grow beyond some bytes: chunks do not fit; with room again the same command goes on."""
    words = ("segment", files / "image.tif", "-o", files / "out", "--weights", bright_is_fibre)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        done = medwave(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.code == 2
    assert len(done.errors) == 1
    assert "cannot be written" in done.errors[0]
    assert "free space" in done.errors[0]
    assert not (files / "out" / "run.json").exists()
    assert medwave(*words).code == 0
    whole = medwave(*words[:3], files / "whole", *words[4:])
    assert whole.code == 0
    for name in ("probability.ome.zarr", "mask.ome.zarr"):
        with open_stack(files / "out" / name) as a, open_stack(files / "whole" / name) as b:
            np.testing.assert_array_equal(a.read(), b.read())


def start(*words, folder):
    """``medwave`` as a process of its own."""
    script = "from medwave.cli.app import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def long_store(bright_is_fibre, tmp_path_factory):
    """A sparse store of a long volume, the words that segment it, and the files of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("long")
    shape, chunk = (64, 64, 2048), (64, 64, 64)  # three cubes: the first is in the journal while the next is predicted
    image = create_ome_zarr(folder / "long.ome.zarr", shape, np.uint16, chunks=chunk, levels=1)
    rng = np.random.default_rng(0)
    for x in range(0, 2048, 128):  # every other chunk was never stored
        block = rng.normal(400, 30, chunk)
        block[14:17, 14:17] += 500
        image.write((slice(0, 64), slice(0, 64), slice(x, x + 64)), block.astype(np.uint16))
    long = folder / "long.ome.zarr"
    words = ("segment", long, "--weights", bright_is_fibre, "--region", ":,:,0:1700", "--threads", "1")
    out, err = start(*words, "-o", "whole", folder=folder).communicate(timeout=500)
    assert out.startswith("14 blocks; "), err
    record = json.loads((folder / "whole" / "run.json").read_text())
    assert max(stage["peak_rss_mb"] for stage in record["stages"]) < 3000
    return words, {name: tree_of(folder / "whole" / name) for name in ("probability.ome.zarr", "mask.ome.zarr")}


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_is_gone_on_with(long_store, tmp_path, sign):
    """Killed after its first blocks, repeated, and compared with a run not killed."""
    words, whole = long_store
    process, journal = start(*words, "-o", "cut", folder=tmp_path), tmp_path / "cut" / "segmentation.blocks"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    process.send_signal(sign)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-9 if sign == signal.SIGKILL else 130), err
    if sign == signal.SIGINT:
        assert "repeat the command to go on" in err
        assert "Traceback" not in err
    finished = journal.read_bytes().count(b"\n")
    store = tmp_path / "cut" / "probability.ome.zarr" / "0"
    times = {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file() and "partial" not in p.name}
    assert 3 <= finished < 14
    out, err = start(*words, "-o", "cut", folder=tmp_path).communicate(timeout=500)
    assert out.startswith(f"14 blocks, {finished} of them by an earlier run"), err
    done_chunks = [p for p in times if p.parent.parent.parent == store and int(p.name) < 2 * finished]
    assert len(done_chunks) >= finished
    assert all(p.stat().st_mtime_ns == times[p] for p in done_chunks)
    assert {name: tree_of(tmp_path / "cut" / name) for name in whole} == whole


def tree_of(folder):
    """All files below a folder, with their content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
