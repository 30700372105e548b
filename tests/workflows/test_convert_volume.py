"""Volumes become OME-Zarr with all their voxels, by bands; TeraFly folders are volumes; shards hold the same values."""

import numpy as np
import pytest
import tifffile

from medwave.core.errors import GeometryError, InputError, MedwaveError, OutputError
from medwave.volumes import OmeZarrImage, build_pyramid, create_ome_zarr, open_stack, write_v3draw
from medwave.workflows import convert_volume as module
from medwave.workflows.convert_volume import band, convert_volume
from medwave.workflows.options_neurons import ConvertVolumeOptions

SHAPE = (40, 90, 150)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(1, 60000, SHAPE, dtype=np.uint16)


def terafly(folder, image, *, ending=".tif"):
    """Tiles of unequal size in the layout of TeraFly; voxels of 2 x 0.5 x 0.5 micrometres."""
    cuts = ((0, 16, 32, 40), (0, 64, 90), (0, 64, 128, 150))
    for z, stop_z in zip(cuts[0], cuts[0][1:], strict=False):
        for y, stop_y in zip(cuts[1], cuts[1][1:], strict=False):
            for x, stop_x in zip(cuts[2], cuts[2][1:], strict=False):
                place = [f"{y * 5:06d}", f"{x * 5:06d}", f"{z * 20:06d}"]
                tile = folder / place[0] / "_".join(place[:2]) / ("_".join(place) + ending)
                tile.parent.mkdir(parents=True, exist_ok=True)
                values = image[z:stop_z, y:stop_y, x:stop_x]
                if ending == ".tif":
                    tifffile.imwrite(tile, values, metadata={"axes": "ZYX"}, photometric="minisblack")
                else:
                    write_v3draw(tile, values)
    return folder


def write_slices(folder, image):
    folder.mkdir()
    for number, plane in enumerate(image):
        tifffile.imwrite(folder / f"s{number:04d}.tif", plane, photometric="minisblack")
    return folder


SOURCES = {
    "stack": lambda p, i: (
        tifffile.imwrite(p / "x.tif", i, metadata={"axes": "ZYX"}, photometric="minisblack") or "x.tif"
    ),
    "slices": lambda p, i: write_slices(p / "slices", i).name,
    "v3draw": lambda p, i: write_v3draw(p / "x.v3draw", i) or "x.v3draw",
    "tiles": lambda p, i: terafly(p / "RES(90x150x40)", i).name,
    "v3draw tiles": lambda p, i: terafly(p / "brain" / "RES(90x150x40)", i, ending=".v3draw").parent.name,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_all_voxels_arrive(image, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(module, "BAND_BYTES", 300_000)  # several bands
    source = tmp_path / SOURCES[kind](tmp_path, image)
    made = convert_volume(source, tmp_path / "x.ome.zarr", options=ConvertVolumeOptions(chunk=16, shard=32))
    with open_stack(made) as opened, open_stack(made, level=1) as coarse:
        np.testing.assert_array_equal(opened.read(), image)
        fz = 1 if opened.spacing_um else 2  # thick slices are kept
        expected = image.reshape(40 // fz, fz, 45, 2, 75, 2).mean(axis=(1, 3, 5), dtype=np.float64)
        assert np.abs(coarse.read() - expected).max() <= 0.51
        if "tiles" in kind:
            assert opened.spacing_um == pytest.approx((2.0, 0.5, 0.5))
    assert OmeZarrImage(made).files == (32, 32, 32)
    assert not list(tmp_path.glob(".medwave-*"))


def test_bands_are_whole_files_and_bounded():
    for shape in ((100, 5000, 7000), (64, 300_000, 200_000), (3, 5, 7), (2000, 2000, 2000)):
        for files in ((64, 64, 64), (512, 512, 512)):
            size = band(shape, files, 2)
            assert all(n % f == 0 for n, f in zip(size, files, strict=True))
            used = np.prod([min(a, b) for a, b in zip(size, shape, strict=True)])
            assert used * 2 <= 2 * max(module.BAND_BYTES, 2 * np.prod(files))


def test_shards_hold_the_values_of_chunks(image, tmp_path):
    for name, shards, version in (("plain", None, "0.5"), ("sharded", (64, 64, 64), "0.5")):
        made = create_ome_zarr(tmp_path / name, SHAPE, np.uint16, chunks=(16, 16, 16), shards=shards, version=version)
        made.write((slice(0, 40), slice(64, 90), slice(0, 64)), image[:, 64:, :64])
        build_pyramid(tmp_path / name, method="max")
    for level in (0, 1, 2):
        with open_stack(tmp_path / "plain", level=level) as a, open_stack(tmp_path / "sharded", level=level) as b:
            np.testing.assert_array_equal(a.read(), b.read())
    files = [len(list((tmp_path / name / "0" / "c").rglob("*"))) for name in ("plain", "sharded")]
    assert files[1] < files[0] / 5
    with pytest.raises(InputError, match=r"0\.5 has shards"):
        create_ome_zarr(tmp_path / "old", SHAPE, np.uint16, shards=(64, 64, 64))
    with pytest.raises(GeometryError, match="shards are three"):
        create_ome_zarr(tmp_path / "none", SHAPE, np.uint16, shards=(0, 1, 1), version="0.5")


def test_a_coarser_level_stays_where_it_is(image, tmp_path):
    made = create_ome_zarr(tmp_path / "a.zarr", SHAPE, np.uint16, chunks=(64, 32, 32), spacing_um=(2, 0.5, 0.5))
    made.write([slice(None)] * 3, image)
    build_pyramid(tmp_path / "a.zarr")
    convert_volume(tmp_path / "a.zarr", tmp_path / "b.zarr", options=ConvertVolumeOptions(level=2))
    assert OmeZarrImage(tmp_path / "b.zarr").offset_voxels == (0, 0.375, 0.375)


def test_boxes_of_tiles(image, tmp_path):
    with open_stack(terafly(tmp_path / "t", image)) as volume:
        assert volume.shape == SHAPE
        for box in ((slice(10, 33), slice(60, 70), slice(100, 150)), (slice(16, 17), slice(0, 90), slice(63, 65))):
            np.testing.assert_array_equal(volume.read(box), image[box])


def test_a_missing_or_foreign_tile_is_named(image, tmp_path):
    folder = terafly(tmp_path / "t", image)
    tile = folder / "000320" / "000320_000320" / "000320_000320_000640.tif"
    tifffile.imwrite(tile, image[:2, :3, :4], metadata={"axes": "ZYX"}, photometric="minisblack")
    with open_stack(folder) as volume, pytest.raises(GeometryError, match="000320_000320_000640"):
        volume.read()
    tile.unlink()
    with pytest.raises(MedwaveError, match="1 tiles are missing, first 000320_000320_000640"):
        open_stack(folder)


def test_what_is_there_stays_and_a_failure_leaves_nothing(image, tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", image, metadata={"axes": "ZYX"}, photometric="minisblack")
    (tmp_path / "there.zarr").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        convert_volume(tmp_path / "x.tif", tmp_path / "there.zarr")
    with pytest.raises(OutputError, match=r"x\.zarr: the folder \S+none does not exist"):
        convert_volume(tmp_path / "x.tif", tmp_path / "none" / "x.zarr")
    with pytest.raises(InputError, match=r"ends in \.zarr"):
        convert_volume(tmp_path / "x.tif", tmp_path / "there.tif")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_volume(tmp_path / "x.tif", tmp_path / "new.zarr", on_progress=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there.zarr", "x.tif"]
    with pytest.raises(InputError, match="multiple of the chunk"):
        ConvertVolumeOptions(chunk=64, shard=100)
