"""Segmentation on a cluster: the same bytes as in one process, also when a run changes over, or things go wrong."""

import os
import shutil

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from segment_case import as_store, noise_with_lines, several_cubes, stores  # noqa: F401  (a fixture)

import medwave
from medwave.core.errors import InputError, OutputError
from medwave.cubes import Box
from medwave.engine.fibres import blocks_within
from medwave.volumes import create_ome_zarr, open_stack
from medwave.workflows import segment_tasks
from medwave.workflows.segment_store import JOURNAL, PROBABILITY
from medwave.workflows.segment_tasks import ShardWork, shards_of

SHAPE = (8, 20, 600)
BLOCKS = 5


@pytest.fixture(scope="module")
def image():
    """Noise with bright lines in every block."""
    volume = noise_with_lines(SHAPE)
    volume[3:6, :, 200:203] += 150
    return volume.clip(0).astype(np.uint16)


@pytest.fixture(scope="module")
def volume(image, tmp_path_factory):
    return as_store(tmp_path_factory.mktemp("input") / "image.ome.zarr", image, chunks=(32, 64, 64))


@pytest.fixture
def run(volume, bright_is_fibre, tmp_path):
    def segment(folder="out", source=volume, **changes):
        given = {"weights": bright_is_fibre, "threads": 1, "overlap": 16, "shard": 256, "precision": "float32"}
        return medwave.segment(source, tmp_path / folder, **(given | changes))

    return segment


@pytest.fixture(scope="module")
def undisturbed(volume, bright_is_fibre, tmp_path_factory):
    """The run in one process."""
    folder = tmp_path_factory.mktemp("one") / "out"
    return medwave.segment(
        volume, folder, weights=bright_is_fibre, threads=1, overlap=16, shard=256, precision="float32"
    )


def test_the_same_bytes_as_in_one_process(run, workers, undisturbed, tmp_path):
    seen = []
    result = run(workers=workers, on_progress=seen.append)
    assert stores(result.folder) == stores(undisturbed.folder)
    assert result.fibre_voxels == undisturbed.fibre_voxels > 500
    assert (result.blocks, result.blocks_before, result.cubes.predicted > 0) == (BLOCKS, 0, True)
    assert [(seen[0].done, seen[0].total), (seen[-1].done, seen[-1].total)] == [(0, BLOCKS), (BLOCKS, BLOCKS)]
    assert seen[-1].voxels_per_s > 0
    assert sorted((tmp_path / "out" / JOURNAL).read_text().splitlines()) == sorted(
        (undisturbed.folder / JOURNAL).read_text().splitlines()
    )


def test_a_run_changes_over_to_a_cluster_and_back(run, workers, undisturbed, tmp_path):
    def stop(at):
        if at.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(on_progress=stop)
    with pytest.raises(KeyboardInterrupt):
        run(workers=workers, on_progress=lambda at: stop(at) if at.done > 1 else None)
    here = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / PROBABILITY / "0").rglob("*.*")}
    result = run()
    assert 1 < result.blocks_before < BLOCKS
    assert stores(result.folder) == stores(undisturbed.folder)
    assert {p: p.stat().st_mtime_ns for p in here} == here


def test_a_part_that_cannot_be_read_is_named_and_done_when_it_is_repaired(run, workers, undisturbed, volume, tmp_path):
    damaged = tmp_path / "damaged.ome.zarr"
    shutil.copytree(volume, damaged)
    chunk = damaged / "0" / "0" / "0" / "0"
    whole, times = chunk.read_bytes(), chunk.stat()

    def damage(name):
        if name == "segment":
            chunk.write_bytes(b"no chunk of zarr")

    with pytest.raises(InputError, match=r"damaged.*1 of 3 shards.*region 0:8,0:20,0:256.*cannot be decoded"):
        run(source=damaged, workers=workers, on_stage=damage)
    assert len((tmp_path / "out" / JOURNAL).read_text().splitlines()) == BLOCKS - 2
    assert not (tmp_path / "out" / "run.json").exists()
    chunk.write_bytes(whole)
    os.utime(chunk, ns=(times.st_atime_ns, times.st_mtime_ns))
    result = run(source=damaged, workers=workers)
    assert result.blocks_before == BLOCKS - 2
    assert stores(result.folder) == stores(undisturbed.folder)


def test_weights_that_changed_on_the_way_are_refused(run, workers, bright_is_fibre, tmp_path):
    weights = tmp_path / "w.safetensors"
    shutil.copy(bright_is_fibre, weights)

    def change(name):
        if name == "segment":
            weights.write_bytes(weights.read_bytes() + b" ")

    with pytest.raises(InputError, match="other weights"):
        run(weights=weights, workers=workers, on_stage=change)


def test_a_store_that_cannot_be_written_stops_the_run(run, workers, tmp_path):
    def close(name):
        if name == "segment":
            folder = tmp_path / "out" / PROBABILITY / "0"
            shutil.rmtree(folder / "0", ignore_errors=True)
            (folder / "0").write_text("a file where a folder of chunks is to be")

    with pytest.raises(OutputError, match="cannot be written"):
        run(workers=workers, on_stage=close)
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.parametrize("many", [False, True])
def test_small_pieces_are_those_of_the_whole_mask(run, workers, undisturbed, many):
    least = 500  # a line has fewer voxels in a block, and more in all
    with open_stack(undisturbed.probability) as opened:
        fibre = opened.read() > 0.1 * 255
    labels, count = ndimage.label(fibre, ndimage.generate_binary_structure(3, 2))
    voxels = np.bincount(labels.ravel())
    voxels[0] = 0
    expected = (voxels >= least)[labels]
    result = run(workers=workers if many else None, threshold=0.1, smallest_piece_voxels=least)
    with open_stack(result.mask) as opened:
        np.testing.assert_array_equal(opened.read() > 0, expected)
    kept = int((voxels >= least).sum())
    assert 0 < kept < count
    assert result.record["pieces"] == {
        "kept": kept, "left_out": count - kept, "voxels_left_out": int(fibre.sum() - expected.sum())
    }  # fmt: skip
    assert result.fibre_voxels == expected.sum()


def test_a_mask_without_large_pieces_says_so(run):
    result = run(smallest_piece_voxels=10**6)
    assert result.fibre_voxels == 0
    assert "no voxel in a piece of 1000000 voxels or more" in result.warnings[0]
    with pytest.raises(InputError, match="smallest_piece"):
        run(smallest_piece_voxels=-1)


def test_every_block_is_in_one_shard():
    blocks = blocks_within((300, 700, 500), Box((10, 0, 100), (300, 700, 450)))
    shards = shards_of(blocks, 256)
    assert sorted(block for shard in shards for block in shard.blocks) == sorted(blocks)
    for shard in shards:
        corner = [a // 256 for a in shard.box.start]
        for block in shard.blocks:
            assert block.overlap(shard.box) == block
            assert [a // 256 for a in block.start] == corner
            assert [(b - 1) // 256 for b in block.stop] == corner


def test_the_smallest_shard_begins_last(run, workers):
    result = run(workers=workers, region=":,:,200:600")  # shards of 56, 256 and 88 voxels
    first_written = (result.folder / JOURNAL).read_text().splitlines()[0]
    assert first_written != "0 0 200"


def test_shards_are_whole_blocks(run):
    for size in (0, 100, 200):
        with pytest.raises(InputError, match="multiple of 128"):
            run(shard=size)


def test_a_tiff_by_a_relative_name(workers, image, bright_is_fibre, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("small.tif", image[:, :, :80], metadata={"axes": "ZYX"}, photometric="minisblack")
    result = medwave.segment("small.tif", "out", weights=os.path.relpath(bright_is_fibre), workers=workers, threads=1)
    assert result.blocks == 1


def test_from_a_bucket_to_a_bucket(run, bucket, image, undisturbed, tmp_path):
    from medwave.scale import open_workers
    from medwave.volumes.location import location

    source = f"{bucket}/image.ome.zarr"
    create_ome_zarr(source, SHAPE, np.uint16, chunks=(32, 64, 64), overwrite=True).write([slice(None)] * 3, image)
    with open_workers("local:1", threads=1) as one:  # started now, so that it knows the bucket
        result = run(source=source, workers=one, store=f"{bucket}/run")
    assert result.probability.path.endswith("run/probability.ome.zarr")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["run.json", JOURNAL, "segmentation.json"]
    root = location(f"{bucket}/run")
    there = {name.split("/run/")[1]: root.fs.cat(name) for name in root.fs.find(root.path)}
    assert there == stores(undisturbed.folder)
    again = run(source=source, store=f"{bucket}/run")
    assert (again.blocks_before, again.cubes.predicted) == (BLOCKS, 0)


def test_workers_open_a_volume_anew_that_was_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(segment_tasks, "_open", lambda _: object())
    work = ShardWork(str(tmp_path / "a.nii"), "w", "", "p", None, None, None, 1)
    tools = []
    for content in (b"one", b"other"):
        (tmp_path / "a.nii").write_bytes(content)
        tools += [segment_tasks._tools(work), segment_tasks._tools(work)]
    assert tools[0] is tools[1] is not tools[2] is tools[3]
    segment_tasks._opened.clear()
