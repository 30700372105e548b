"""Segmentation into a folder: known values, resumption, and folders that hold something else."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

import medwave
from medwave.core.errors import DeviceError, GeometryError, InputError, MedwaveError, OutputError
from medwave.cubes import Box
from medwave.models import WiNet, fibre_network, save_weights, shipped_weights
from medwave.transforms.microscopy import sampled_scale
from medwave.volumes import create_ome_zarr, open_stack
from medwave.workflows.options_neurons import SegmentOptions
from medwave.workflows.segment import parse_region, prepare
from medwave.workflows.segment_store import JOURNAL, MASK, PROBABILITY, RECORD, SegmentStore, create_mask

SHAPE = (8, 20, 600)
BLOCKS = 5


@pytest.fixture(scope="module")
def image():
    """Noise with bright lines in every block."""
    rng = np.random.default_rng(0)
    volume = rng.normal(100, 10, SHAPE)
    volume[3:6, 4::9, :] += 150
    volume[3:6, :, 200:203] += 150
    return volume.clip(0).astype(np.uint16)


@pytest.fixture
def volume(image, tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path, image, imagej=True, metadata={"axes": "ZYX", "spacing": 2.0, "unit": "um"}, resolution=(2, 2)
    )
    return path


@pytest.fixture
def run(volume, bright_is_fibre, tmp_path):
    """Segment the volume into a folder."""

    def segment(folder="out", **changes):
        return medwave.segment(volume, tmp_path / folder, **({"weights": bright_is_fibre, "threads": 1} | changes))

    return segment


def stopping_after(count):
    """A listener that interrupts, as Ctrl-C does, when a number of blocks is done."""

    def listen(at):
        if at.done == count:
            raise KeyboardInterrupt

    return listen


def content(folder):
    """All files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def stores(folder):
    return {name: data for name, data in content(folder).items() if name.startswith((PROBABILITY, MASK))}


def test_probabilities_mask_and_record(run, image):
    result = run()
    with open_stack(result.probability) as opened:
        probability, spacing = opened.read(), opened.spacing_um
    scaled = np.maximum(sampled_scale(image.__getitem__, SHAPE)(image), 0) * (1 + 1e-5) ** -2
    expected = 255 / (1 + np.exp(-8 * (scaled - 1)))
    rounding = 1.0 if result.options.precision == "float32" else 3.0  # bfloat16, where the processor multiplies it
    assert np.abs(probability - expected).max() <= rounding
    assert spacing == pytest.approx((2.0, 0.5, 0.5))
    with open_stack(result.mask) as opened:
        mask = opened.read()
    np.testing.assert_array_equal(mask, np.where(probability > 127.5, 255, 0))
    assert result.fibre_voxels == np.count_nonzero(mask)
    assert (result.blocks, result.blocks_before) == (BLOCKS, 0)
    for path in (result.probability, result.mask):
        with open_stack(path, level=1) as coarse:
            assert coarse.shape[2] == 300
            assert coarse.read().max() > 200
    record = json.loads((result.folder / "run.json").read_text())
    assert record["options"]["precision"] == "float32" or result.options.precision == "bfloat16"
    assert record["fibre_voxels"] == result.fibre_voxels
    assert record["inputs"]["volume"]["of"] == "content"
    assert record["weights"]["provenance"] == "made by a test"
    assert [stage["name"] for stage in record["stages"]] == ["look", "segment", "mask"]


def test_the_images_of_a_coarser_level_lie_on_the_volume(tmp_path):
    create_ome_zarr(tmp_path / "a.zarr", (20, 40, 40), np.uint8, chunks=(16, 16, 16), spacing_um=(2, 1, 1))
    with open_stack(tmp_path / "a.zarr", level=2) as volume, SegmentStore(tmp_path, {}).open(volume) as image:
        mask = create_mask(tmp_path / MASK, image)
    assert image.offset_voxels == mask.offset_voxels == (0.25, 0.375, 0.375)


@pytest.mark.parametrize(("black_level", "name"), [(0, "neuron_noise"), (130, "neuron")])
def test_the_network_is_chosen_by_whether_noise_is_seen(image, tmp_path, black_level, name):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.maximum(image, black_level) - black_level)
    with open_stack(path) as opened:
        job = prepare(opened, None, SegmentOptions())
    assert Path(job.provenance["path"]) == shipped_weights(name)


def test_a_region_of_a_volume_that_is_empty_elsewhere_has_its_own_scale(image, tmp_path, monkeypatch):
    monkeypatch.setattr("medwave.transforms.microscopy._LOOKED_AT", 1)
    shape = (64, 256, 1024)
    volume = np.zeros(shape, np.uint16)
    volume[40:48, 100:120, 200:800] = image
    path = tmp_path / "sparse.tif"
    tifffile.imwrite(path, volume)
    with open_stack(path) as opened:
        with pytest.raises(InputError, match="it is empty"):
            prepare(opened, None, SegmentOptions())
        job = prepare(opened, None, SegmentOptions(region="40:48,100:120,200:800"))
    assert abs(job.scale.center - np.median(image)) < 10


@pytest.mark.parametrize("layout", [{}, {"version": "0.5"}, {"version": "0.5", "shards": (64, 128, 128)}])
def test_where_a_store_lacks_chunks_the_scale_is_that_of_those_it_holds(image, tmp_path, monkeypatch, layout):
    monkeypatch.setattr("medwave.transforms.microscopy._LOOKED_AT", 16)
    shape = (64, 256, 1024)
    store = create_ome_zarr(tmp_path / "sparse.ome.zarr", shape, np.uint16, **layout)
    store.write([slice(0, 64), slice(64, 128), slice(320, 384)], np.tile(image[:, :16, 300:364], (8, 4, 1)))
    with open_stack(store.path) as opened:
        with pytest.raises(InputError, match="it is empty"):
            sampled_scale(opened.read, shape)
        scale = prepare(opened, None, SegmentOptions()).scale
        side = store.files[1]
        corner = (64 // side * side, 320 // side * side)
        assert opened.stored() == [(slice(0, 64), *(slice(a, a + side) for a in corner))]
    assert abs(scale.center - np.median(image)) < 10


def test_a_region_does_not_excuse_values_that_are_not_finite_elsewhere(image, tmp_path):
    volume = np.concatenate([image, image]).astype(np.float32)
    volume[12, 3, 300] = np.nan
    path = tmp_path / "nan.tif"
    tifffile.imwrite(path, volume)
    with open_stack(path) as opened, pytest.raises(InputError, match="NaN"):
        prepare(opened, None, SegmentOptions(region="0:8,:,:"))


def test_an_interrupted_run_goes_on_to_the_same_bytes(run, tmp_path, monkeypatch):
    monkeypatch.setattr("medwave.engine.fibres.CUBE_VOXELS", 16 * 32 * 160)  # several cubes
    whole = run("whole", overlap=16)
    with pytest.raises(KeyboardInterrupt):
        run("cut", overlap=16, on_progress=stopping_after(2))
    cut = tmp_path / "cut"
    assert not (cut / "run.json").exists()
    finished = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in (cut / PROBABILITY / "0").rglob("*") if p.is_file()}
    assert len(finished) > 2
    seen = []
    result = run("cut", overlap=16, on_progress=lambda at: seen.append(at.done))
    assert seen == [2, 3, 4, 5]
    assert result.blocks_before == 2
    assert result.cubes.predicted < whole.cubes.predicted
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in finished} == finished
    assert stores(cut) == stores(tmp_path / "whole")


def test_a_line_that_a_kill_cut_short_does_not_count(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(on_progress=stopping_after(3))
    journal = tmp_path / "out" / JOURNAL
    whole = journal.read_bytes()
    assert len(whole.splitlines()) == 3
    journal.write_bytes(whole[:-3])
    (tmp_path / "out" / PROBABILITY / "0" / "0.f00.partial").write_bytes(b"half a chunk")
    result = run()
    assert result.blocks_before == 2
    assert len(journal.read_bytes().splitlines()) == BLOCKS
    assert stores(tmp_path / "out") == stores(run("whole").folder)


def test_a_complete_run_is_not_predicted_again_and_takes_another_threshold(run):
    first = run()
    again = run(threshold=0.9)
    assert again.cubes.predicted == again.cubes.empty == 0
    assert again.blocks_before == BLOCKS
    assert 0 < again.fibre_voxels < first.fibre_voxels
    with open_stack(again.mask) as opened:
        assert np.count_nonzero(opened.read()) == again.fibre_voxels


def test_a_store_whose_making_was_killed_is_made_again(run, tmp_path, monkeypatch):
    def killed(*args, **options):
        create_ome_zarr(*args, **options)
        (tmp_path / "out" / PROBABILITY / ".zattrs").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr("medwave.workflows.segment_store.create_ome_zarr", killed)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.undo()
    assert run().blocks_before == 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"region": "0:8,0:9,0:64"}, "region"),
        ({"skip_empty": False}, "skip_empty"),
        ({"spacing": (3.0, 1.0, 1.0)}, "spacing"),
        ({"precision": "bfloat16"}, "precision"),
        ({"axes": "ZYX"}, "axes"),
    ],
)
def test_a_folder_keeps_its_options(run, tmp_path, changes, word):
    run(precision="float32")
    before = content(tmp_path / "out")
    with pytest.raises(OutputError, match=f"another kind.*{word}.*another folder"):
        run(**({"precision": "float32"} | changes))
    assert content(tmp_path / "out") == before


def test_a_folder_keeps_its_input_and_weights(run, volume, image, tmp_path):
    run()
    before = content(tmp_path / "out")
    other = save_weights(fibre_network("neuron_wavesnet_v4", width=2), tmp_path / "other.safetensors")
    with pytest.raises(OutputError, match="weights"):
        run(weights=other)
    tifffile.imwrite(volume, image[::-1], imagej=True, metadata={"axes": "ZYX", "spacing": 2.0, "unit": "um"})
    with pytest.raises(OutputError, match="volume"):
        run()
    assert content(tmp_path / "out") == before


def test_foreign_and_damaged_folders_are_refused(run, tmp_path):
    (tmp_path / "foreign").mkdir()
    create_ome_zarr(tmp_path / "foreign" / MASK, SHAPE, np.uint8)
    with pytest.raises(OutputError, match=f"holds {MASK}"):
        run("foreign")
    run("damaged")
    (tmp_path / "damaged" / PROBABILITY).rename(tmp_path / "away")
    with pytest.raises(OutputError, match="is missing"):
        run("damaged")
    (tmp_path / "away").rename(tmp_path / "damaged" / PROBABILITY)
    (tmp_path / "damaged" / JOURNAL).write_text("some words\n")
    with pytest.raises(OutputError, match="is damaged"):
        run("damaged")
    (tmp_path / "damaged" / RECORD).write_text("{")
    with pytest.raises(OutputError, match="not a usable record"):
        run("damaged")


def test_a_store_with_the_images_of_another_run_is_refused(run, tmp_path):
    shared, other = tmp_path / "shared", {"store": str(tmp_path / "shared"), "overlap": 48}
    shared.mkdir()
    run("first", store=str(shared))
    before = content(shared)
    with pytest.raises(OutputError, match="does not exist"):
        run("typo", overlap=48, store=str(tmp_path / "gone"))
    run("own", overlap=48)
    for folder in ("typo", "own"):
        with pytest.raises(OutputError, match=f"shared: holds {PROBABILITY} of another run.*choose another --store"):
            run(folder, **other)
    assert content(shared) == before
    assert run("first", store=str(shared)).blocks_before == BLOCKS
    assert run("own", overlap=48, store=str(tmp_path / "own")).blocks_before == BLOCKS
    (tmp_path / "elsewhere").mkdir()
    assert run("typo", overlap=48, store=str(tmp_path / "elsewhere")).blocks_before == 0


def test_two_runs_do_not_share_a_folder(run):
    def meanwhile(at):
        with pytest.raises(OutputError, match=r"process \d+ is working in this folder"):
            run()

    assert run(on_progress=meanwhile).blocks == BLOCKS


def test_a_result_never_replaces_its_input(run, bright_is_fibre, tmp_path):
    folder = run().folder
    before = content(folder)
    for name in (PROBABILITY, MASK):
        with pytest.raises(OutputError, match="replace this input"):
            medwave.segment(folder / name, folder, weights=bright_is_fibre)
    assert content(folder) == before


def test_a_region_lies_where_it_is_in_the_whole(run, tmp_path):
    whole = run("whole")
    part = run("part", region="3:7,4:,40:200")
    box = Box((3, 4, 40), (7, 20, 200))
    assert part.region == box
    with open_stack(whole.probability) as a, open_stack(part.probability) as b:
        assert b.shape == SHAPE
        everything, inside = a.read(), b.read()
    np.testing.assert_array_equal(inside[box.slices], everything[box.slices])
    outside = np.ones(SHAPE, bool)
    outside[box.slices] = False
    assert not inside[outside].any()
    assert part.fibre_share == part.fibre_voxels / (4 * 16 * 160)


def test_regions():
    shape = (10, 20, 30)
    assert parse_region(None, shape) == Box((0, 0, 0), shape)
    assert parse_region("1:3, 4:, :9", shape) == Box((1, 4, 0), (3, 20, 9))
    for text in ("1:3,4:5", "a:b,:,:", "1,2,3", "1:2:3,:,:", ""):
        with pytest.raises(InputError, match=r"z0:z1,y0:y1,x0:x1"):
            parse_region(text, shape)
    for text in ("0:11,:,:", "-3:4,:,:", "5:5,:,:", ":,9:3,:"):
        with pytest.raises(GeometryError, match="lie within"):
            parse_region(text, shape)


def test_a_volume_smaller_than_a_cube(bright_is_fibre, tmp_path):
    small = np.zeros((3, 5, 7), np.uint8)
    small[1, 2] = 90
    tifffile.imwrite(tmp_path / "small.tif", small, metadata={"axes": "ZYX"}, photometric="minisblack")
    result = medwave.segment(tmp_path / "small.tif", tmp_path / "out", weights=bright_is_fibre)
    with open_stack(result.mask) as opened:
        np.testing.assert_array_equal(opened.read() > 0, small > 0)


def test_background_alone_gives_an_empty_mask_and_a_warning(bright_is_fibre, tmp_path):
    quiet = np.random.default_rng(0).normal(100, 5, (32, 64, 64)).astype(np.float32)
    tifffile.imwrite(tmp_path / "quiet.tif", quiet, metadata={"axes": "ZYX"}, photometric="minisblack")
    result = medwave.segment(tmp_path / "quiet.tif", tmp_path / "out", weights=bright_is_fibre)
    assert (result.cubes.predicted, result.cubes.empty) == (0, 1)
    assert result.fibre_voxels == 0
    assert "the mask is empty" in result.warnings[0]


def test_unusable_weights_are_refused_before_a_folder_is_made(run, tmp_path):
    winet = save_weights(WiNet(), tmp_path / "winet.safetensors")
    three = save_weights(fibre_network("neuron_wavesnet_v1", width=2, classes=3), tmp_path / "three.safetensors")
    (tmp_path / "hostile.safetensors").write_bytes(b"\x80\x04cposix\nsystem\n")
    (tmp_path / "cut.safetensors").write_bytes(winet.read_bytes()[:500])
    expected = {
        winet: "WiNet", three: "3 classes", tmp_path / "hostile.safetensors": "can run code",
        tmp_path / "cut.safetensors": "safetensors", tmp_path / "none.safetensors": "no such weight file",
    }  # fmt: skip
    for weights, rule in expected.items():
        with pytest.raises(MedwaveError, match=rule) as caught:
            run(weights=weights)
        assert weights.name in str(caught.value)
    with pytest.raises(DeviceError, match="not usable"):
        run(device="nowhere")
    assert not (tmp_path / "out").exists()


def test_options_are_checked():
    for changes, rule in (({"threshold": 0.0}, "threshold"), ({"threads": -1}, "threads"), ({"precision": "x"}, "pre")):
        with pytest.raises(InputError, match=rule):
            replace(SegmentOptions(), **changes)


def test_values_that_are_not_finite_name_the_volume(bright_is_fibre, tmp_path):
    bad = np.random.default_rng(0).random((20, 30, 40), np.float32)
    bad[4, 5, 6] = np.nan
    tifffile.imwrite(tmp_path / "bad.tif", bad, metadata={"axes": "ZYX"}, photometric="minisblack")
    with pytest.raises(InputError, match=r"bad\.tif.*NaN"):
        medwave.segment(tmp_path / "bad.tif", tmp_path / "out", weights=bright_is_fibre)
    assert not (tmp_path / "out").exists()
