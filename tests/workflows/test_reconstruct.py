"""Reconstruction end to end, and many volumes in one go."""

import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

import medwave
from medwave.core.errors import InputError, MissingFileError, MissingProgramError, OutputError
from medwave.tracing import translate
from medwave.transforms.neurons import Growth, grow_tree, render_neuron
from medwave.volumes import (
    create_ome_zarr,
    open_stack,
    read_swc,
    read_swc_comments,
    read_swc_units,
    write_swc,
    write_v3draw,
)
from medwave.workflows.options_neurons import ReconstructOptions
from medwave.workflows.reconstruct_batch import COLUMNS, Item, batch_items, reconstruct_batch
from medwave.workflows.score import score_file
from medwave.workflows.trace import trace_file

SHAPE = (24, 72, 72)
SPACING = (1.0, 0.5, 0.5)


@pytest.fixture(scope="module")
def neuron():
    return render_neuron(grow_tree(SHAPE, Growth(soma_radius=4.0, stems=3), seed=3), SHAPE, seed=3)


@pytest.fixture
def files(neuron, tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", neuron.image, imagej=True, metadata={"axes": "ZYX"})
    write_swc(tmp_path / "gold.swc", neuron.tree)
    return tmp_path


@pytest.fixture
def run(files, bright_is_fibre):
    def reconstruct(folder="out", **changes):
        return medwave.reconstruct(files / "image.tif", files / folder, **({"weights": bright_is_fibre} | changes))

    return reconstruct


def test_a_volume_becomes_a_scored_tree(run, files):
    stages = []
    result = run(gold=files / "gold.swc", on_stage=stages.append)
    assert stages == ["look", "segment", "mask", "trace", "write", "report"]
    assert result.scores.scores.at_tolerance.by_samples.f1 > 0.9
    np.testing.assert_allclose(read_swc(files / "out" / "tree.swc").positions, result.tree.positions, atol=1e-6)
    assert read_swc_units(files / "out" / "tree.swc") == "voxels"
    comments = "\n".join(read_swc_comments(files / "out" / "tree.swc"))
    assert "image.tif, channel 0, level 0, 24 72 72 voxels (z y x), voxel size unknown" in comments
    assert "probability above 0.5" in comments
    assert str(files) not in comments
    record = json.loads((files / "out" / "run.json").read_text())
    assert record["scores"]["scores"]["f1"] == result.scores.scores.at_tolerance.by_samples.f1
    assert record["tree"]["nodes"] == len(result.tree)
    assert set(record["inputs"]) == {"volume", "gold"}
    assert "gold" in (files / "out" / "report.html").read_text()
    for name in record["files"].values():
        assert (files / "out" / name).exists()
    assert any("voxel size" in text for text in result.warnings)


def test_it_is_segmentation_then_tracing(run, files):
    result = run(trace_on="probability")
    tree = trace_file(
        files / "out" / "probability.ome.zarr", files / "t.swc", kind="probability", on_warning=lambda text: None
    )
    assert tree == result.tree
    assert result.scores is None
    assert json.loads((files / "out" / "run.json").read_text())["scores"] is None


def test_the_image_is_traced_within_the_mask_only(run, files, neuron):
    result = run(threshold=0.9, resample_step=0.0, trace_on="image")
    inside = part_mask(files / "out")
    z, y, x = np.rint(result.tree.positions[:, ::-1]).astype(int).T
    assert inside[z, y, x].mean() > 0.9
    contrast = np.where(inside, neuron.image, 0).astype(np.uint8)
    tifffile.imwrite(files / "masked.tif", contrast, photometric="minisblack", metadata={"axes": "ZYX"})
    other = trace_file(files / "masked.tif", files / "t.swc", threshold=0.0, resample_step=0.0, on_warning=str)
    assert abs(other.length - result.tree.length) < 0.1 * other.length
    both = run(threshold=0.9, resample_step=0.0)
    z, y, x = np.rint(both.tree.positions[:, ::-1]).astype(int).T
    assert inside[z, y, x].mean() > 0.9
    assert both.segmentation.cubes.predicted == 0


@pytest.mark.parametrize("trace_on", ["probability", "image", "both"])
def test_pieces_that_the_mask_leaves_out_are_not_traced(files, bright_is_fibre, trace_on):
    image = np.random.default_rng(0).integers(0, 12, SHAPE).astype(np.uint8)
    image[11:14, 19:22, 5:65] = image[5:7, 50:52, 20:50] = 200  # of 540 and 120 voxels
    tifffile.imwrite(files / "pieces.tif", image, imagej=True, metadata={"axes": "ZYX"})
    options = {"weights": bright_is_fibre, "bridge_distance": 0, "trace_on": trace_on}
    every = medwave.reconstruct(files / "pieces.tif", files / "out", **options)
    assert [round(y) for y in every.tree.positions[every.tree.roots, 1]] == [20, 50]
    large = medwave.reconstruct(files / "pieces.tif", files / "out", **options, smallest_piece_voxels=400)
    assert not part_mask(files / "out")[:, 40:].any()
    assert large.tree.length > 50
    assert large.tree.positions[:, 1].max() < 25


def test_micrometres(run, files):
    voxels, um = run("v", spacing=SPACING), run("u", spacing=SPACING, units="um")
    np.testing.assert_allclose(um.tree.positions, voxels.tree.positions * SPACING[::-1], atol=1e-5)
    assert read_swc_units(files / "u" / "tree.swc") == "um"


def test_a_region_gives_the_tree_where_it_is_in_the_volume(run, files):
    part = run(region=":,20:,10:60", gold=files / "gold.swc")
    assert part.tree.positions[:, 0].min() >= 9.5
    assert part.tree.positions[:, 0].max() <= 59.5
    assert part.scores.scores.at_tolerance.by_samples.precision > 0.9
    assert "region :,20:,10:60" in "\n".join(read_swc_comments(files / "out" / "tree.swc"))
    z, y, x = np.argwhere(part_mask(files / "out")).mean(axis=0)
    rooted = run(region=":,20:,10:60", root=(z, y, x), trees="one")
    nearest = np.linalg.norm(rooted.tree.positions - (x, y, z), axis=1).min()
    assert nearest < 30


def part_mask(folder):
    with open_stack(folder / "mask.ome.zarr") as opened:
        return opened.read() > 0


def test_other_options_of_tracing_keep_the_probabilities(run):
    first = run()
    again = run(bridge_distance=0.0, resample_step=0.0)
    assert again.segmentation.blocks_before == first.segmentation.blocks
    assert again.segmentation.cubes.predicted == 0
    assert len(again.tree) > len(first.tree)


def test_what_cannot_end_well_is_said_before_the_work(run, files, monkeypatch):
    with pytest.raises(InputError, match="--spacing"):
        run(units="um")
    write_swc(files / "um.swc", read_swc(files / "gold.swc"), units="um")
    with pytest.raises(InputError, match=r"um\.swc: is in micrometres.*--spacing"):
        run(gold=files / "um.swc")
    with pytest.raises(MissingFileError, match=r"none\.swc"):
        run(gold=files / "none.swc")
    write_swc(files / "far.swc", translate(read_swc(files / "gold.swc"), (0, 0, 2)))
    with pytest.raises(InputError, match=r"far\.swc: no part of the gold tree lies in .* to \[\d+, \d+, 1\]"):
        run(gold=files / "far.swc", region="0:2,:,:")
    with pytest.raises(InputError, match="bridge_angle_degrees"):
        run(bridge_angle_degrees=999.0)
    with pytest.raises(
        InputError, match=r"image\.tif: the root .* 10 voxels outside .* \(0, 20, 10\) to \(23, 71, 59\)"
    ):
        run(region=":,20:,10:60", root=(5, 30, 70))
    monkeypatch.setenv("PATH", str(files))
    with pytest.raises(MissingProgramError, match=r"image\.tif: vaa3d is not on the PATH"):
        run(tracer="vaa3d")
    assert not (files / "out").exists()


def test_a_gold_tree_is_never_replaced(run, files):
    (files / "out").mkdir()
    before = (files / "gold.swc").rename(files / "out" / "tree.swc").read_bytes()
    with pytest.raises(OutputError, match=r"tree\.swc: a result would replace this input"):
        run(gold=files / "out" / "tree.swc")
    assert [(path.name, path.read_bytes()) for path in (files / "out").iterdir()] == [("tree.swc", before)]


def test_nothing_to_trace_keeps_the_segmentation(bright_is_fibre, tmp_path):
    quiet = np.random.default_rng(0).normal(100, 5, SHAPE).astype(np.float32)
    tifffile.imwrite(tmp_path / "quiet.tif", quiet, metadata={"axes": "ZYX"}, photometric="minisblack")
    with pytest.raises(InputError, match=r"quiet\.tif: no voxel has a probability above 0.5"):
        medwave.reconstruct(tmp_path / "quiet.tif", tmp_path / "out", weights=bright_is_fibre)
    assert not (tmp_path / "out" / "run.json").exists()
    assert (tmp_path / "out" / "mask.ome.zarr").exists()


def test_two_runs_do_not_share_a_folder_till_the_record_is_written(run, files):
    stages = []

    def meanwhile(stage):
        stages.append(stage)
        if stage in ("trace", "report"):
            with pytest.raises(OutputError, match=r"out: process \d+ is working in this folder"):
                run(threshold=0.9)
            with pytest.raises(OutputError, match=r"out: process \d+ is working in this folder"):
                medwave.segment(files / "image.tif", files / "out")

    first = run(on_stage=meanwhile)
    assert {"trace", "report"} < set(stages)
    assert json.loads((files / "out" / "run.json").read_text())["tree"]["nodes"] == len(first.tree)
    assert not (files / "out" / ".lock").exists()
    assert run(threshold=0.9).segmentation.cubes.predicted == 0


def test_more_fibre_than_can_be_is_refused_and_the_way_out_works(run, files):
    with pytest.raises(InputError, match=r"image\.tif: .* have a probability above 0.5.*raise the --threshold"):
        run(largest_foreground_share=0.001)
    assert run().segmentation.cubes.predicted == 0


def test_other_data_of_the_same_header_are_not_taken_for_the_volume(files, neuron, bright_is_fibre):
    def write(image):
        sitk.WriteImage(sitk.GetImageFromArray(image), str(files / "m.mhd"))
        return (files / "m.mhd").read_bytes()

    header = write(neuron.image)
    items = [Item("m", files / "m.mhd")]
    assert reconstruct_batch(items, files / "all", weights=bright_is_fibre)[0].status == "done"
    assert reconstruct_batch(items, files / "all", weights=bright_is_fibre)[0].status == "complete before"
    assert write(neuron.image[::-1].copy()) == header
    (again,) = reconstruct_batch(items, files / "all", weights=bright_is_fibre)
    assert again.status == "failed"
    assert "holds a segmentation of another kind (volume: " in again.error


@pytest.fixture
def many(files, neuron):
    """Three volumes in a folder, the second damaged; beside them a table."""
    folder = files / "many"
    folder.mkdir()
    write_v3draw(folder / "a.v3draw", neuron.image)
    (folder / "b.tif").write_bytes((files / "image.tif").read_bytes()[:9000])
    tifffile.imwrite(folder / "c.tif", neuron.image[::-1], imagej=True, metadata={"axes": "ZYX"})
    (folder / "notes.txt").write_text("not a volume")
    (files / "table.csv").write_text("volume,gold,name\nmany/a.v3draw,gold.swc,first\nimage.tif,,\n")
    return folder


def rows(folder):
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_batch_goes_on_past_a_bad_volume_and_resumes(many, files, bright_is_fibre):
    items = batch_items([many])
    assert [item.name for item in items] == ["a", "b", "c"]
    results = reconstruct_batch(items, files / "all", weights=bright_is_fibre)
    assert [result.status for result in results] == ["done", "failed", "done"]
    assert "b.tif" in results[1].error
    table = rows(files / "all")
    assert tuple(table[0]) == COLUMNS
    assert [row["status"] for row in table] == ["done", "failed", "done"]
    assert float(table[0]["length"]) > 50
    times = {p: p.stat().st_mtime_ns for p in (files / "all").rglob("tree.swc")}
    assert len(times) == 2
    (many / "b.tif").write_bytes((files / "image.tif").read_bytes())
    again = reconstruct_batch(items, files / "all", weights=bright_is_fibre)
    assert [result.status for result in again] == ["complete before", "done", "complete before"]
    assert {p: p.stat().st_mtime_ns for p in times} == times
    assert rows(files / "all")[0]["length"] == table[0]["length"]


def test_the_table_of_a_batch_is_not_replaced_by_its_summary(many, files, bright_is_fibre):
    table = (files / "table.csv").rename(files / "summary.csv")
    before = table.read_text()
    with pytest.raises(OutputError, match="a result would replace this input"):
        reconstruct_batch(batch_items([table]), files, sources=[table], weights=bright_is_fibre)
    assert table.read_text() == before


def test_two_batches_do_not_share_a_folder(many, files, bright_is_fibre):
    def again(item, number):
        with pytest.raises(OutputError, match="is working in this folder"):
            reconstruct_batch(batch_items([many]), files / "all", weights=bright_is_fibre)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconstruct_batch(batch_items([many]), files / "all", weights=bright_is_fibre, on_item=again)


def test_a_batch_that_was_interrupted_goes_on(many, files, bright_is_fibre):
    def stop(item, number):
        if number == 1:
            raise KeyboardInterrupt

    items = [Item("a", many / "a.v3draw"), Item("c", many / "c.tif")]
    with pytest.raises(KeyboardInterrupt):
        reconstruct_batch(items, files / "all", weights=bright_is_fibre, on_item=stop)
    assert [row["name"] for row in rows(files / "all")] == ["a"]
    results = reconstruct_batch(items, files / "all", weights=bright_is_fibre)
    assert [result.status for result in results] == ["complete before", "done"]


def test_a_tree_that_was_removed_is_made_again(files, bright_is_fibre):
    items = [Item("a", files / "image.tif")]
    reconstruct_batch(items, files / "all", weights=bright_is_fibre)
    tree = files / "all" / "a" / "tree.swc"
    before = read_swc(tree)
    tree.unlink()
    (again,) = reconstruct_batch(items, files / "all", weights=bright_is_fibre)
    assert again.status == "done"
    assert read_swc(tree) == before


def test_in_a_batch_each_volume_has_a_store_of_its_own(many, files, bright_is_fibre):
    items = [Item("a", many / "a.v3draw"), Item("c", many / "c.tif")]
    options = ReconstructOptions(store=str(files / "store"))
    for status in ("done", "complete before"):
        results = reconstruct_batch(items, files / "all", weights=bright_is_fibre, options=options)
        assert [(result.status, result.error) for result in results] == [(status, "")] * 2
    for name in ("a", "c"):
        assert sorted(path.name for path in (files / "store" / name).iterdir()) == [
            "mask.ome.zarr", "probability.ome.zarr"
        ]  # fmt: skip


def test_tables_and_names(many, files, bright_is_fibre):
    first, second = batch_items([files / "table.csv"])
    assert first == Item("first", many / "a.v3draw", files / "gold.swc")
    assert second == Item("image", files / "image.tif")
    assert [i.name for i in batch_items([files / "image.tif", many / "image.v3draw"])] == ["image", "image-2"]
    results = reconstruct_batch([first], files / "all", weights=bright_is_fibre)
    row = results[0].row()
    scored = score_file(files / "all" / "first" / "tree.swc", files / "gold.swc").scores
    assert row["f1"] == pytest.approx(scored.at_tolerance.by_samples.f1, abs=1e-4)
    assert row["esa"] == pytest.approx(scored.distances.esa, abs=1e-4)


def test_a_header_in_a_folder_counts_together_with_its_values(tmp_path, neuron):
    for name in ("a.mhd", "b.nhdr"):
        sitk.WriteImage(sitk.GetImageFromArray(neuron.image), str(tmp_path / name))
    write_v3draw(tmp_path / "c.raw", neuron.image)
    assert {path.name for path in tmp_path.iterdir()} >= {"a.raw", "b.raw"}
    assert [item.volume.name for item in batch_items([tmp_path])] == ["a.mhd", "b.nhdr", "c.raw"]


def test_a_table_may_name_urls(files):
    (files / "urls.csv").write_text("volume\nhttp://127.0.0.1:1/brain.ome.zarr\nfile:///data/other.tif\nimage.tif\n")
    items = batch_items([files / "urls.csv"])
    assert [item.name for item in items] == ["brain", "other", "image"]
    where = ["http://127.0.0.1:1/brain.ome.zarr", "/data/other.tif", str(files / "image.tif")]
    assert [str(item.volume) for item in items] == where


def test_one_volume_is_no_batch(many, files, neuron):
    assert batch_items([files / "image.tif"]) is None
    create_ome_zarr(files / "store.ome.zarr", SHAPE, np.uint8)
    assert batch_items([files / "store.ome.zarr"]) is None
    slices = files / "slices"
    slices.mkdir()
    for n, part in enumerate(neuron.image[:3]):
        tifffile.imwrite(slices / f"s{n:03}.tif", part)
    assert batch_items([slices]) is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "a column volume"),
        ("path\na.tif\n", "a column volume"),
        ("volume,gold\n", "at least one row"),
        ("volume,gold\na.tif,\n,b.swc\n", "line 3: names no volume"),
        ("volume,name\na.tif,../up\n", "folder to make"),
        (b"volume\n\xff\xfe\n", "UTF-8"),
    ],
)
def test_unusable_tables_are_refused(tmp_path, text, rule):
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=rule):
        batch_items([tmp_path / "t.csv"])
