"""The page of a trace from its files: units, parts and gold trees come out at the same places."""

import re

import numpy as np
import pytest
import tifffile

from medwave.core.errors import InputError, MissingFileError, OutputError
from medwave.core.tree import Tree
from medwave.tracing import scale, translate
from medwave.transforms.neurons import Growth, grow_tree, render_neuron
from medwave.volumes import build_pyramid, create_ome_zarr, open_stack, read_swc, write_swc
from medwave.workflows.neuron_page import read_gold, trace_with_page, write_neuron_page
from medwave.workflows.options import TraceFileOptions

SHAPE = (24, 72, 84)


@pytest.fixture(scope="module")
def neuron():
    return render_neuron(grow_tree(SHAPE, Growth(soma_radius=4.0, stems=3), seed=3), SHAPE, seed=3)


@pytest.fixture
def files(neuron, tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", neuron.image, photometric="minisblack", metadata={"axes": "ZYX"})
    write_swc(tmp_path / "gold.swc", neuron.tree, units="voxels")
    return tmp_path


def test_a_trace_with_its_page(files):
    warnings = []
    tree = trace_with_page(
        files / "image.tif", files / "tree.swc", files / "page.html", gold=files / "gold.swc",
        command_line="medwave trace image.tif", on_warning=warnings.append,
    )  # fmt: skip
    assert read_swc(files / "tree.swc").length == pytest.approx(tree.length, rel=1e-3)
    html = (files / "page.html").read_text(encoding="utf-8")
    assert "image.tif was traced" in html
    assert "medwave trace image.tif" in html
    assert 'href="tree.swc"' in html
    assert warnings[0] in html
    assert "finished with a warning" in html
    assert "Against the gold tree" in html


def test_micrometres_and_voxels_give_the_same_page(files, neuron):
    spacing = (2.0, 0.5, 0.5)
    pages, scores = [], []
    for units, tree in (("voxels", neuron.tree), ("um", scale(neuron.tree, spacing[::-1], radius_factor=0.5))):
        options = TraceFileOptions(units=units, spacing=spacing)
        path = files / f"{units}.html"
        scores.append(write_neuron_page(path, files / "image.tif", tree, options=options, gold=files / "gold.swc"))
        pages.append(re.search('class="tree-line" d="(.*?)"', path.read_text(encoding="utf-8"))[1])
    assert pages[0] == pages[1]
    assert scores[0].distances.esa == pytest.approx(0, abs=1e-5)
    assert scores[1].at_tolerance.by_samples.f1 == pytest.approx(1)


def test_trees_in_micrometres_of_all_levels_of_a_volume_count_from_one_place(tmp_path):
    """Voxel 0 of level 2 lies 1.5 voxels of level 0 from that of level 0."""
    z, y, x = np.mgrid[:16, :64, :128]
    fibre = 200 * np.exp(-((z - 8) ** 2 + (y - 30) ** 2) / 18) * ((x > 15) & (x < 112))
    store, gold, page = tmp_path / "a.zarr", tmp_path / "gold.swc", tmp_path / "page.html"
    made = create_ome_zarr(store, fibre.shape, np.uint8, chunks=(8, 16, 32), spacing_um=(1, 1, 1))
    made.write([slice(None)] * 3, fibre.astype(np.uint8))
    build_pyramid(store)
    write_swc(gold, Tree([[20, 30, 8], [108, 30, 8]], [3, 3], [-1, 0], [0, 0]), units="um")
    for level, factors in enumerate(np.array([[1, 1, 1], [2, 2, 2], [4, 4, 2]])):
        esa = {}
        for units in ("um", "voxels"):
            options = TraceFileOptions(level=level, units=units, threshold=60.0)
            trace_with_page(store, tmp_path / f"{units}.swc", page, options=options)
            tree = read_swc(tmp_path / f"{units}.swc")
            esa[units] = write_neuron_page(page, store, tree, options=options, gold=gold).distances.esa
        um, voxels = (read_swc(tmp_path / f"{units}.swc").positions for units in ("um", "voxels"))
        np.testing.assert_allclose(um, (voxels + 0.5) * factors - 0.5, atol=0.01)
        assert esa["um"] == pytest.approx(esa["voxels"], abs=0.01)
        with open_stack(store, level=level) as volume:
            start = read_gold(gold, volume, "voxels").whole.positions[0]
        np.testing.assert_allclose(start, (np.array([20, 30, 8]) + 0.5) / factors - 0.5)


def test_of_a_gold_tree_only_what_was_looked_at_counts(files, neuron):
    box = (slice(None), slice(0, 72), slice(20, None))
    write_swc(files / "wide.swc", translate(neuron.tree, (10, 0, 0)), units="voxels")
    tree = translate(neuron.tree, (10, 0, 0))
    scores = write_neuron_page(
        files / "p.html", files / "image.tif", tree, options=TraceFileOptions(), gold=files / "wide.swc", box=box
    )
    assert scores.gold_topology.length < 0.99 * neuron.tree.length
    assert scores.at_tolerance.by_samples.recall == pytest.approx(1)
    html = (files / "p.html").read_text(encoding="utf-8")
    assert re.search(r"\d\d % of the gold tree lie inside the volume", html)
    assert "0, 0, 20" in html


def test_what_cannot_work_is_said_before_the_trace(files):
    where = files / "image.tif", files / "tree.swc"
    with pytest.raises(OutputError, match="absent does not exist"):
        trace_with_page(*where, files / "absent" / "page.html")
    with pytest.raises(OutputError, match="would replace its input"):
        trace_with_page(*where, files / "gold.swc", gold=files / "gold.swc")
    with pytest.raises(OutputError, match="would replace its input"):
        trace_with_page(where[0], files / "gold.swc", files / "page.html", gold=files / "gold.swc")
    with pytest.raises(OutputError, match="the page would replace the tree"):
        trace_with_page(*where, files / "tree.swc")
    with pytest.raises(MissingFileError, match=r"none\.swc"):
        trace_with_page(*where, files / "page.html", gold=files / "none.swc")
    assert not (files / "tree.swc").exists()


@pytest.mark.parametrize(
    ("gold", "words"),
    [
        ("1 3 5 5 5 1 -1\n", "has no length"),
        (
            "1 3 500 500 50 1 -1\n2 3 600 500 50 1 1\n",
            r"no part .* x y z from \[0, 0, 0\] to \[83, 71, 23\]: .* 500 to 600",
        ),
        ("# units: um\n1 3 5 5 5 1 -1\n2 3 9 5 5 1 1\n", "is in micrometres.*--spacing"),
    ],
)
def test_a_gold_tree_that_nothing_can_be_compared_with_is_told_before_the_trace(files, gold, words):
    (files / "odd.swc").write_text(gold)
    with pytest.raises(InputError, match=rf"odd\.swc: .*{words}"):
        trace_with_page(files / "image.tif", files / "tree.swc", files / "page.html", gold=files / "odd.swc")
    assert not (files / "tree.swc").exists()


def test_a_gold_tree_in_micrometres_needs_the_voxel_size(files, neuron):
    write_swc(files / "um.swc", neuron.tree, units="um")
    with pytest.raises(InputError, match=r"um\.swc: is in micrometres.*--spacing"):
        write_neuron_page(
            files / "p.html", files / "image.tif", neuron.tree, options=TraceFileOptions(), gold=files / "um.swc"
        )


def test_the_image_is_never_read_whole(files, neuron, monkeypatch):
    from medwave.volumes import LazyVolume

    boxes, read = [], LazyVolume.read

    def watched(self, box=None):
        boxes.append(box)
        return read(self, box)

    monkeypatch.setattr(LazyVolume, "read", watched)
    write_neuron_page(files / "p.html", files / "image.tif", neuron.tree, options=TraceFileOptions())
    assert boxes
    assert all(box is not None for box in boxes)


def test_a_tree_of_one_place_is_still_shown(files, neuron):
    alone = neuron.tree.select(np.array([0]))
    assert write_neuron_page(files / "p.html", files / "image.tif", alone, options=TraceFileOptions()) is None
    assert "No branch was found" in (files / "p.html").read_text(encoding="utf-8")
