"""Files of neurons: traced and scored end to end, in voxels and micrometres, repaired and converted."""

import os

import numpy as np
import pytest
import tifffile

from medwave.core.errors import InputError, OutputError
from medwave.core.tree import SOMA, Tree
from medwave.metrics import tree_distances
from medwave.tracing import flip_y, scale, topology, translate
from medwave.transforms.neurons import Growth, grow_tree, render_neuron
from medwave.volumes import read_swc, read_swc_comments, read_swc_units, validate_swc, write_swc, write_v3draw
from medwave.workflows.options import SwcConvertOptions, TraceFileOptions
from medwave.workflows.score import score_file
from medwave.workflows.swc import check_swc, convert_swc, fix_swc
from medwave.workflows.trace import trace_file

SHAPE = (24, 72, 72)
SPACING = (1.0, 0.5, 0.5)


@pytest.fixture(scope="module")
def neuron():
    return render_neuron(grow_tree(SHAPE, Growth(soma_radius=4.0, stems=3), seed=3), SHAPE, seed=3)


@pytest.fixture
def files(neuron, tmp_path):
    """The image as ImageJ TIFF without voxel size, and its true tree in voxels."""
    tifffile.imwrite(tmp_path / "image.tif", neuron.image, imagej=True, metadata={"axes": "ZYX"})
    write_swc(tmp_path / "gold.swc", neuron.tree)
    return tmp_path


def quiet(text):
    """For warnings that a test is not about."""


def chain(*points, parent=None, kind=None, radius=1.0):
    """A small tree, by default one node hanging on the one before."""
    count = len(points)
    parents = np.arange(count) - 1 if parent is None else np.array(parent)
    kinds = np.full(count, 3) if kind is None else np.array(kind)
    return Tree(np.array(points, float), np.full(count, radius), parents, kinds)


def test_a_synthetic_neuron_is_traced_and_scored(files):
    warnings = []
    tree = trace_file(files / "image.tif", files / "tree.swc", on_warning=warnings.append)
    assert len(warnings) == 1
    assert "voxel size" in warnings[0]
    assert len(read_swc(files / "tree.swc")) == len(tree)
    assert read_swc_units(files / "tree.swc") == "voxels"
    assert not [f for f in validate_swc(files / "tree.swc") if f.severity == "error"]
    scored = score_file(files / "tree.swc", files / "gold.swc")
    assert scored.scores.at_tolerance.by_samples.f1 > 0.9
    assert scored.scores.distances.esa < 1.5
    assert scored.units == "voxels"
    assert scored.as_dict()["scores"]["f1"] == scored.scores.at_tolerance.by_samples.f1


def test_the_header_says_units_image_and_program(files):
    trace_file(files / "image.tif", files / "tree.swc", spacing=SPACING, on_warning=quiet)
    text = "\n".join(read_swc_comments(files / "tree.swc"))
    assert "units: voxels" in text
    assert "traced by medwave" in text
    assert "image.tif, channel 0, level 0, 24 72 72 voxels (z y x), voxel size 1 0.5 0.5 um" in text
    assert str(files) not in text


def test_formats_give_the_same_tree(files, neuron):
    write_v3draw(files / "image.v3draw", neuron.image)
    trees = [trace_file(files / name, files / "t.swc", on_warning=quiet) for name in ("image.tif", "image.v3draw")]
    assert trees[0] == trees[1]


def test_micrometres_are_voxels_times_the_voxel_size(files):
    in_voxels = trace_file(files / "image.tif", files / "v.swc", spacing=SPACING, on_warning=pytest.fail)
    in_um = trace_file(files / "image.tif", files / "u.swc", spacing=SPACING, units="um", on_warning=pytest.fail)
    assert in_um == scale(in_voxels, SPACING[::-1], radius_factor=0.5)
    assert read_swc_units(files / "u.swc") == "um"
    convert_swc(files / "gold.swc", files / "gold_um.swc", options=SwcConvertOptions(units="um", spacing=SPACING))
    by_file = score_file(files / "u.swc", files / "gold_um.swc", tolerance=1.0, step=0.5)
    by_option = score_file(files / "v.swc", files / "gold.swc", tolerance=1.0, step=0.5, spacing=SPACING)
    assert by_file.units == "um"
    assert by_file.scores.distances.esa == pytest.approx(by_option.scores.distances.esa, abs=1e-4)
    for trace, gold, spacing in (("u.swc", "gold.swc", None), ("u.swc", "gold_um.swc", SPACING)):
        with pytest.raises(InputError, match=r"u\.swc.* um"):
            score_file(files / trace, files / gold, spacing=spacing)


def test_micrometres_need_a_voxel_size(files):
    with pytest.raises(InputError, match=r"image\.tif.*--spacing"):
        trace_file(files / "image.tif", files / "tree.swc", units="um")
    assert not (files / "tree.swc").exists()


def test_options_reach_the_tracer(files):
    root = tuple(float(v) for v in read_swc(files / "gold.swc").positions[0, ::-1])
    one = TraceFileOptions(root=root, trees="one", bridge_distance=0.0)
    tree = trace_file(files / "image.tif", files / "tree.swc", options=one, on_warning=quiet)
    assert len(tree.roots) == 1
    assert tree.kind[tree.roots[0]] == SOMA
    assert np.linalg.norm(tree.positions[tree.roots[0], ::-1] - root) < 4
    with pytest.raises(InputError, match=r"image\.tif.*threshold"):
        trace_file(files / "image.tif", files / "none.swc", threshold=300.0, on_warning=quiet)
    with pytest.raises(InputError, match="units"):
        TraceFileOptions(units="mm")


@pytest.mark.parametrize(
    ("move", "words"),
    [
        (lambda tree: flip_y(tree, SHAPE[1]), "mirrored along y"),
        (lambda tree: translate(tree, (0.0, 9.0, 0.0)), "brighter"),
        (lambda tree: tree.select(tree.roots), "no edge"),
    ],
)
def test_a_tree_that_misses_the_fibres_is_doubted(files, neuron, monkeypatch, move, words):
    warnings = []
    monkeypatch.setattr("medwave.workflows.trace.trace_source", lambda *_, **__: move(neuron.tree))
    trace_file(files / "image.tif", files / "tree.swc", spacing=SPACING, on_warning=warnings.append)
    assert len(warnings) == 1
    assert words in warnings[0]


def test_a_root_far_outside_of_the_volume_is_refused_at_once(files):
    stages = []
    with pytest.raises(InputError, match=r"image\.tif: the root .* = \(30, 50, 99\) is more than 10 voxels outside"):
        trace_file(files / "image.tif", files / "t.swc", root=(30, 50, 99), on_stage=stages.append, on_warning=quiet)
    assert not stages


def test_too_much_foreground_is_refused_by_name(files):
    with pytest.raises(InputError, match=r"image\.tif: .*foreground"):
        trace_file(files / "image.tif", files / "tree.swc", threshold=0.5, on_warning=quiet)


def test_only_vaa3d_is_refused_what_cannot_fit_in_memory(files, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 1000 if name == "SC_PAGE_SIZE" else 100)
    with pytest.raises(InputError, match=r"image\.tif.*with medwave"):
        trace_file(files / "image.tif", files / "tree.swc", tracer="vaa3d", on_warning=quiet)
    assert len(trace_file(files / "image.tif", files / "tree.swc", on_warning=quiet)) > 10
    assert not list(files.glob("*.parts"))


def test_an_input_is_never_replaced(files):
    before = (files / "image.tif").read_bytes()
    with pytest.raises(OutputError, match="replace its input"):
        trace_file(files / "image.tif", files / "image.tif")
    with pytest.raises(OutputError, match="replace its input"):
        fix_swc(files / "gold.swc", files / "gold.swc")
    assert (files / "image.tif").read_bytes() == before


@pytest.mark.parametrize("content", [None, "", "# only a comment\n", "1 1 5 5 5 1 -1\n"])
def test_a_missing_or_empty_trace_is_the_worst(files, content):
    if content is not None:
        (files / "tree.swc").write_text(content)
    scored = score_file(files / "tree.swc", files / "gold.swc")
    assert scored.scores.failed
    row = scored.scores.row()
    assert np.isnan(row["esa"])
    assert row["f1"] == row["recall_by_length"] == row["simplified_diadem"] == 0


def test_a_gold_tree_must_be_there(files):
    (files / "point.swc").write_text("1 1 5 5 5 1 -1\n")
    with pytest.raises(InputError, match=r"point\.swc.*length"):
        score_file(files / "gold.swc", files / "point.swc")
    with pytest.raises(FileNotFoundError, match=r"none\.swc"):
        score_file(files / "gold.swc", files / "none.swc")


def test_a_tree_against_itself_is_perfect(files):
    row = score_file(files / "gold.swc", files / "gold.swc").scores.row()
    assert row["esa"] == pytest.approx(0, abs=1e-9)
    assert row["f1"] == row["path_f1"] == row["simplified_diadem"] == 1


def test_fix_joins_sorts_and_cleans(tmp_path):
    (tmp_path / "bad.swc").write_text(
        "# by hand\n10 3 2 0 0 1 7\n7 1 0 0 0 3 -1\n8 3 0 0 0 1 7\n9 3 0 4 0 0 8\n11 5 4 0 0 1 10\n12 3 6 0 0 1 11\n"
        "20 3 0 7 0 1 -1\n21 3 0 9 0 1 20\n"
    )
    before, after = fix_swc(tmp_path / "bad.swc", tmp_path / "good.swc", join=3.5, radius=0.4, on_warning=quiet)
    assert (len(before), len(before.roots)) == (8, 2)
    assert (len(after), len(after.roots)) == (7, 1)
    assert after.kind[0] == SOMA
    assert set(after.kind[1:]) == {3}
    assert after.radius.min() == 0.4
    assert (after.parent < np.arange(7)).all()
    assert topology(after).length == pytest.approx(topology(before).length + 3)
    assert not validate_swc(tmp_path / "good.swc", single_tree=True)
    assert "by hand" in read_swc_comments(tmp_path / "good.swc")


def test_fix_keeps_the_form_of_a_real_tree_and_hangs_it_where_told(files):
    before, after = fix_swc(files / "gold.swc", files / "fixed.swc", root=len(read_swc(files / "gold.swc")))
    assert np.array_equal(after.positions[0], before.positions[-1])
    assert tree_distances(before, after).esa == pytest.approx(0, abs=1e-9)
    assert after.length == pytest.approx(before.length)
    with pytest.raises(InputError, match=r"gold\.swc: has no node 99999"):
        fix_swc(files / "gold.swc", files / "again.swc", root=99999)


def test_fix_says_when_units_are_unknown(tmp_path):
    (tmp_path / "a.swc").write_text("1 1 0 0 0 1 -1\n2 3 5 0 0 1 1\n")
    warnings = []
    fix_swc(tmp_path / "a.swc", tmp_path / "b.swc", on_warning=warnings.append)
    assert "units" in warnings[0]
    fix_swc(tmp_path / "a.swc", tmp_path / "c.swc", units="um", on_warning=pytest.fail)
    assert read_swc_units(tmp_path / "c.swc") == "um"


def test_conversion_there_and_back(tmp_path):
    tree = chain((1, 2, 3), (4, 8, 6), (5, 9, 7))
    write_swc(tmp_path / "v.swc", tree)
    spacing = (2.0, 0.5, 0.25)
    there = SwcConvertOptions(units="um", spacing=spacing)
    in_um = convert_swc(tmp_path / "v.swc", tmp_path / "u.swc", options=there)
    assert in_um.positions[0].tolist() == [0.25, 1.0, 6.0]
    assert in_um.radius.tolist() == [0.25] * 3
    back = SwcConvertOptions(units="voxels", spacing=spacing)
    assert convert_swc(tmp_path / "u.swc", tmp_path / "w.swc", options=back) == tree
    with pytest.raises(InputError, match=r"u\.swc.*already"):
        convert_swc(tmp_path / "u.swc", tmp_path / "x.swc", options=there)
    flip = SwcConvertOptions(flip_y=20, spacing=spacing)
    flipped = convert_swc(tmp_path / "u.swc", tmp_path / "y.swc", options=flip)
    assert flipped.positions[:, 1].tolist() == [(19 - y) * 0.5 for y in (2, 8, 9)]
    assert convert_swc(tmp_path / "v.swc", tmp_path / "z.swc", options=SwcConvertOptions(flip_y=20)) == flip_y(tree, 20)
    with pytest.raises(InputError, match=r"u\.swc.*--spacing"):
        convert_swc(tmp_path / "u.swc", tmp_path / "x.swc", options=SwcConvertOptions(flip_y=20))


def test_conversion_says_what_it_takes_an_unlabelled_file_to_be(tmp_path):
    (tmp_path / "a.swc").write_text("1 1 0 0 0 1 -1\n2 3 5 0 0 1 1\n")
    warnings = []
    options = SwcConvertOptions(units="um", spacing=(1.0, 1.0, 2.0))
    tree = convert_swc(tmp_path / "a.swc", tmp_path / "b.swc", options=options, on_warning=warnings.append)
    assert tree.positions[1, 0] == 10
    assert "taken to be in voxels" in warnings[0]


@pytest.mark.parametrize("wrong", [{}, {"units": "um"}, {"flip_y": 0}, {"units": "mm"}])
def test_conversions_that_say_too_little_are_refused(wrong):
    with pytest.raises(InputError, match=r"--units|--spacing|rows|units"):
        SwcConvertOptions(**wrong)


def test_check_tells_a_flipped_tree_by_its_image(files, neuron):
    assert check_swc(files / "gold.swc", image=files / "image.tif").misplaced == ""
    write_swc(files / "flipped.swc", flip_y(neuron.tree, SHAPE[1]))
    assert "--flip-y 72" in check_swc(files / "flipped.swc", image=files / "image.tif").misplaced
    assert "--spacing" not in check_swc(files / "flipped.swc", image=files / "image.tif").misplaced
    write_swc(files / "away.swc", translate(neuron.tree, (500, 0, 0)))
    away = check_swc(files / "away.swc", image=files / "image.tif")
    assert "outside" in away.misplaced
    assert {f.code for f in away.findings} == {"outside-image"}


def test_check_brings_micrometres_to_the_voxels_of_the_image(files, neuron):
    size = {"resolution": (4, 4), "metadata": {"axes": "ZYX", "spacing": 1.5, "unit": "um"}}
    tifffile.imwrite(files / "sized.tif", neuron.image, imagej=True, **size)
    for name, tree in (("good", neuron.tree), ("flipped", flip_y(neuron.tree, SHAPE[1]))):
        write_swc(files / f"{name}.swc", scale(tree, (0.25, 0.25, 1.5)), units="um")
    good = check_swc(files / "good.swc", image=files / "sized.tif")
    assert (good.misplaced, [f.code for f in good.findings if f.code == "outside-image"]) == ("", [])
    flipped = check_swc(files / "flipped.swc", image=files / "sized.tif")
    assert flipped.misplaced.endswith("medwave swc convert --flip-y 72 --spacing 1.5,0.25,0.25")
    with pytest.raises(InputError, match=r"good\.swc: is in micrometres, .*image\.tif does not tell.*--units voxels"):
        check_swc(files / "good.swc", image=files / "image.tif")
