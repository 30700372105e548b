"""TIFF in all its dialects: values, axes and voxel sizes come back, few strips are touched, bad files are refused."""

import itertools
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from stack_cases import DTYPES, boxes, reads_as, refused, shapes, volume

from medwave.core.errors import GeometryError, InputError, MedwaveError, MissingFileError, VolumeFormatError
from medwave.volumes import tiff, write_v3draw
from medwave.volumes.lzw import lzw_decode
from medwave.volumes.open import open_stack

IN_A_FOLDER = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=60, **IN_A_FOLDER)
@given(st.data())
def test_round_trips(tmp_path, data):
    shape = data.draw(shapes(20))
    values = volume(shape, data.draw(st.sampled_from(DTYPES)))
    options = {
        "byteorder": data.draw(st.sampled_from(["<", ">"])),
        "bigtiff": data.draw(st.booleans()),
        "contiguous": data.draw(st.booleans()),
        "compression": data.draw(st.sampled_from([None, "zlib"])),
    }
    if options["compression"] and values.dtype.kind in "iu":
        options["predictor"] = data.draw(st.booleans())
    options |= data.draw(st.sampled_from([{}, {"rowsperstrip": 3}, {"tile": (16, 16)}]))
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", **options)
    reads_as(tmp_path / "a.tif", values, data.draw(boxes(shape)))


@settings(max_examples=25, **IN_A_FOLDER)
@given(st.data())
def test_imagej_hyperstacks(tmp_path, data):
    shape = data.draw(shapes())
    channels = data.draw(st.integers(1, 3))
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "float32"]))
    values = volume((shape[0], channels, *shape[1:]), dtype)
    spacing_um = data.draw(st.tuples(*[st.floats(0.01, 100)] * 3))
    unit, factor = data.draw(
        st.sampled_from([("um", 1), ("micron", 1), ("\\u00B5m", 1), ("nm", 1000), ("mm", 1e-3), ("cm", 1e-4)])
    )
    z, y, x = (s * factor for s in spacing_um)
    tifffile.imwrite(
        tmp_path / "a.tif",
        values,
        imagej=True,
        compression=data.draw(st.sampled_from([None, "zlib"])),
        resolution=(1 / x, 1 / y),
        metadata={"axes": "ZCYX", "spacing": z, "unit": unit},
    )
    channel = data.draw(st.integers(0, channels - 1))
    stack = reads_as(tmp_path / "a.tif", values[:, channel], channel=channel)
    assert stack.channels == channels
    np.testing.assert_allclose(stack.spacing_um, spacing_um, rtol=1e-3)
    refused(tmp_path / "a.tif", InputError, f"channel {channels} is asked for", channel=channels)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes", ["CZYX", "ZCYX", "TCZYX"])
def test_ome_tiff(tmp_path, compression, axes):
    path = tmp_path / "a.ome.tif"
    values = volume((2, 3, 20, 30), "uint16")
    stored = {"CZYX": values, "ZCYX": values.swapaxes(0, 1), "TCZYX": values[None]}[axes]
    sizes = {"PhysicalSizeX": 300, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25, "PhysicalSizeZ": 0.002}
    metadata = {"axes": axes, **sizes, "PhysicalSizeZUnit": "mm"}
    tifffile.imwrite(path, stored, metadata=metadata, compression=compression, ome=True)
    for channel in (0, 1):
        stack = reads_as(path, values[channel], channel=channel)
        assert stack.spacing_um == pytest.approx((2, 0.25, 0.3))
    assert open_stack(path, spacing_um=(1, 1, 1)).spacing_um == (1, 1, 1)


def test_the_voxel_size_is_that_of_the_image_that_is_read(tmp_path):
    """A label before the volume, of other pixels."""
    values = volume((4, 20, 30), "uint8")
    sizes = {f"PhysicalSize{a}": size for a, size in zip("XYZ", (0.3, 0.25, 2.0), strict=True)}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        writer.write(values[0, :9, :9], metadata={"axes": "YX", **{f"PhysicalSize{a}": 9.0 for a in "XYZ"}})
        writer.write(values, metadata={"axes": "ZYX", **sizes})
    assert reads_as(tmp_path / "a.ome.tif", values).spacing_um == (2.0, 0.25, 0.3)


def test_an_ome_tiff_over_several_files(tmp_path):
    values = volume((2, 5, 6), "uint8")
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{z}.ome.tif">urn:uuid:{z}</UUID></TiffData>'
        for z in range(2)
    )
    for z in range(2):
        xml = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{z}"><Image ID="Image:0">'
            '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="6" SizeY="5" SizeZ="2" SizeC="1" '
            f'SizeT="1"><Channel ID="Channel:0"/>{planes}</Pixels></Image></OME>'
        )
        tifffile.imwrite(tmp_path / f"{z}.ome.tif", values[z], description=xml, metadata=None)
    reads_as(tmp_path / "0.ome.tif", values)
    (tmp_path / "1.ome.tif").unlink()
    refused(tmp_path / "0.ome.tif", VolumeFormatError, "slice is missing.*copy all files")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"resolution": (300, 300), "resolutionunit": "inch"}, None),
        ({"imagej": True}, None),
        ({"imagej": True, "metadata": {"unit": "pixel", "spacing": 2.0}, "resolution": (4, 4)}, None),
        ({"imagej": True, "metadata": {"unit": "furlong", "spacing": 2.0}, "resolution": (4, 4)}, None),
        (
            {"imagej": True, "metadata": {"unit": "um"}, "resolution": (4, 2)},
            (1, 0.5, 0.25),
        ),  # ImageJ omits a step of 1
        ({"imagej": True, "metadata": {"unit": "um", "spacing": -3.0}, "resolution": (4, 2)}, (3, 0.5, 0.25)),
        ({"imagej": True, "metadata": {"unit": "um", "spacing": 0.0}, "resolution": (4, 2)}, None),
        (
            {"imagej": True, "metadata": {"unit": "um", "zunit": "nm", "spacing": 300.0}, "resolution": (4, 2)},
            (0.3, 0.5, 0.25),
        ),
        (
            {"imagej": True, "metadata": {"unit": "um", "yunit": "mm", "spacing": 3.0}, "resolution": (4, 2)},
            (3, 500, 0.25),
        ),
        ({"ome": True, "metadata": {"PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0}}, None),
        ({"ome": True, "metadata": {f"PhysicalSize{a}": 2.0 for a in "XYZ"}}, (2, 2, 2)),
        ({"ome": True, "metadata": {"PhysicalSizeXUnit": "pixel"} | {f"PhysicalSize{a}": 2.0 for a in "XYZ"}}, None),
    ],
)
def test_voxel_sizes_are_told_only_where_the_file_tells_them(tmp_path, options, expected):
    path = tmp_path / "a.tif"
    options = {**options, "metadata": {"axes": "ZYX", **options.get("metadata", {})}}
    tifffile.imwrite(path, volume((6, 5, 7), "uint8"), **options)
    stack = open_stack(path)
    assert stack.spacing_um == (None if expected is None else pytest.approx(expected))
    assert open_stack(path, spacing_um=[3, 2, 1]).spacing_um == (3, 2, 1)


def test_slices_that_are_labelled_wrongly(tmp_path):
    path = tmp_path / "a.tif"
    values = volume((5, 6, 7), "uint8")
    tifffile.imwrite(path, values, imagej=True, metadata={"axes": "TYX"})
    refused(path, GeometryError, r'axes TYX of shape \(5, 6, 7\).*say axes="ZYX"')
    reads_as(path, values, axes="ZYX")
    values = volume((2, 5, 6, 7), "uint8")
    tifffile.imwrite(path, values, photometric="minisblack")
    refused(path, GeometryError, 'axes QQYX.*or "CZYX"')
    reads_as(path, values[1], axes="CZYX", channel=1)
    reads_as(path, values[:, 3], axes="zcyx", channel=3)
    for axes in ("ZYX", "ZZYX", "CTYX", "ZCXY", "CCYX"):
        refused(path, InputError, f'each axis once.*got "{axes}"', axes=axes)


def test_samples_are_channels_unless_they_are_colours(tmp_path):
    path = tmp_path / "a.tif"
    values = volume((4, 5, 6, 2), "uint16")
    for planes, planar in ((values, "contig"), (values.transpose(0, 3, 1, 2), "separate")):
        for options in ({}, {"compression": "zlib", "rowsperstrip": 2}):
            tifffile.imwrite(
                path,
                planes,
                photometric="minisblack",
                planarconfig=planar,
                extrasamples=["unspecified"],
                metadata=None,
                **options,
            )
            reads_as(path, values[..., 1], channel=1)


@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_lzw(tmp_path, dtype, predictor):
    noise = volume((3, 90, 110), dtype)
    smooth = np.cumsum(np.ones_like(noise), axis=1, dtype=dtype)
    for values in (noise, smooth, np.zeros_like(noise)):
        pages = [Image.fromarray(page) for page in values]
        options = {"compression": "tiff_lzw", "tiffinfo": {317: predictor, 278: 37}}
        pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], **options)
        with tifffile.TiffFile(tmp_path / "a.tif") as tif:
            assert (tif.pages.first.compression, tif.pages.first.predictor) == (5, predictor)
        reads_as(tmp_path / "a.tif", values)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60), st.integers(1, 200))
def test_damaged_lzw_never_leaves_its_bounds(data, size):
    try:
        outcome = "damaged" if len(lzw_decode(data, size)) == size else "wrong size"
    except ValueError as error:
        outcome = str(error)
    assert "damaged" in outcome


def with_tag(path, code, meaning):
    """Give a private tag of the first page another meaning: tifffile writes some tags by itself only."""
    with tifffile.TiffFile(path) as tif:
        place = tif.pages[0].tags[code].offset
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, place, meaning)
    path.write_bytes(content)


def test_a_stack_of_micro_manager_says_its_axes_for_ome_and_for_imagej(tmp_path):
    path, values = tmp_path / "MMStack.ome.tif", volume((4, 6, 7), "uint16")
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    imagej = (65000, "s", 0, "ImageJ=1.52p\nimages=4\nslices=4\n", True)
    tifffile.imwrite(path, values, ome=True, metadata={"axes": "ZYX"} | sizes, extratags=[imagej])
    with_tag(path, 65000, 270)  # a second description
    reads_as(path, values)
    assert open_stack(path).spacing_um == (2.0, 0.5, 0.5)


def test_thumbnails_and_voxel_sizes_of_lsm(tmp_path):
    path, values = tmp_path / "a.lsm", volume((4, 3, 6, 7), "uint16")
    info = struct.pack("<Ii8i6d2H", 67127628, 92, 7, 6, 4, 3, 1, 2, 3, 3, 2e-7, 3e-7, 1e-6, 0, 0, 0, 0, 0)
    with tifffile.TiffWriter(path) as writer:
        about = {"photometric": "rgb", "planarconfig": "separate", "metadata": None}
        for z, plane in enumerate(values):
            tags = [(65000, "B", len(info), info, True)] if z == 0 else []
            writer.write(plane, extratags=tags, **about)
            writer.write(np.zeros((3, 3, 3), np.uint8), subfiletype=1, **about)
    with_tag(path, 65000, 34412)
    for channel in range(3):
        reads_as(path, values[:, channel], channel=channel)
    assert open_stack(path).spacing_um == pytest.approx((1.0, 0.3, 0.2))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_that_were_added_one_by_one_are_a_stack(tmp_path, compression):
    path, values = tmp_path / "a.tif", volume((4, 6, 7), "uint16")
    for plane in values:
        tifffile.imwrite(path, plane, append=path.exists(), photometric="minisblack", compression=compression)
    reads_as(path, values)
    tifffile.imwrite(path, values[0, :4], append=True, photometric="minisblack")
    refused(path, GeometryError, "equal in shape")


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_page_of_another_shape_may_lie_beside_a_volume_and_not_in_it(tmp_path, place):
    path, values = tmp_path / "a.tif", volume((4, 6, 7), "uint8")
    pages = [*values[:place], values[0, :4], *values[place:]]
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            writer.write(page, metadata=None, photometric="minisblack")
    if place == 2:
        refused(path, GeometryError, r"page 2 \(from 0\) is \(4, 7\), others are \(6, 7\)")
    else:
        reads_as(path, values)


def test_a_palette_of_imagej_is_for_display(tmp_path):
    values = volume((3, 4, 5), "uint8")
    red = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, colormap=red, photometric="palette", metadata=None)
    refused(tmp_path / "a.tif", VolumeFormatError, "colour image.*PALETTE.*split its channels")
    tifffile.imwrite(
        tmp_path / "b.tif",
        values,
        colormap=red,
        photometric="palette",
        metadata=None,
        description="ImageJ=1.53t\nimages=3\nslices=3\n",
    )
    reads_as(tmp_path / "b.tif", values)


@pytest.mark.parametrize(("layout", "touched"), [({"rowsperstrip": 16}, 2 * 2), ({"tile": (16, 32)}, 2 * 2)])
def test_only_the_strips_of_a_box_are_decoded(tmp_path, monkeypatch, layout, touched):
    values = volume((6, 64, 64), "uint16")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, compression="zlib", **layout)
    spoiled = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        for page in (0, 1, 4, 5):
            for offset in tif.pages[page].dataoffsets:
                spoiled[offset : offset + 20] = bytes(20)
    path.write_bytes(spoiled)
    decoded = []
    decode = tiff.TiffPages._decode
    monkeypatch.setattr(tiff.TiffPages, "_decode", lambda *a: decoded.append(a) or decode(*a))
    stack = open_stack(path)
    box = (slice(2, 4), slice(20, 40), slice(3, 30))
    np.testing.assert_array_equal(stack.read(box), values[box])
    assert len(decoded) == touched
    with pytest.raises(VolumeFormatError, match=r"a\.tif: the data of voxels \[1:3, .*cannot be decoded"):
        stack.read((slice(1, 3), slice(0, 64), slice(0, 64)))


def test_unusable_files(tmp_path):
    path = tmp_path / "a.tif"
    grey = volume((6, 30, 40), "uint8")
    for options, pattern in (
        ({"data": np.repeat(grey[..., None], 3, -1), "photometric": "rgb"}, "colour image.*RGB.*split its channels"),
        ({"data": grey[0]}, "3-D volume is needed.*YX of shape.*stack its slices"),
        ({"data": np.repeat(grey[0][..., None], 3, -1), "photometric": "rgb"}, "colour image"),
        ({"data": grey > 0}, "integers or floats, these are bool"),
        ({"data": grey + 1j}, "integers or floats, these are complex"),
        ({"data": grey[:, :1], "photometric": "minisblack"}, "single slice"),
    ):
        tifffile.imwrite(path, **options)
        refused(path, (GeometryError, VolumeFormatError), pattern)
    with tifffile.TiffWriter(path) as writer:
        writer.write(grey[0], metadata=None)
        writer.write(grey[0, :20], metadata=None)
    refused(path, GeometryError, r"equal in shape.*\(30, 40\), \(20, 40\)")
    with tifffile.TiffWriter(path) as writer:
        writer.write(grey)
        writer.write(grey[:, :20])
    refused(path, GeometryError, "the file has 2")
    refused(tmp_path / "gone.tif", MissingFileError, "no such file")
    for name, content in (("b.tif", b""), ("c.tif", b"II*"), ("d.tif", b"\x89PNG" + bytes(50))):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, VolumeFormatError, "not a TIFF file, whatever its name says")
    (tmp_path / "e.tif").write_bytes(b"II*\0" + bytes(4))
    refused(tmp_path / "e.tif", GeometryError, "empty")
    (tmp_path / "a.xyz").write_bytes(path.read_bytes())
    refused(tmp_path / "a.xyz", VolumeFormatError, r"volumes are read from \.tif")


@pytest.mark.parametrize(("code", "said"), [(34887, "LERC"), (50000, "compression")])
def test_a_codec_that_is_not_there(tmp_path, monkeypatch, code, said):
    monkeypatch.setitem(sys.modules, "compression", None)  # Zstandard, in newer Pythons
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, volume((5, 16, 16), "uint8"), compression="zlib")
    with tifffile.TiffFile(path) as tif:
        places = [page.tags["Compression"].valueoffset for page in tif.pages]
    content = bytearray(path.read_bytes())
    for place in places:
        struct.pack_into("<H", content, place, code)
    path.write_bytes(content)
    refused(path, VolumeFormatError, f"cannot be decoded here.*{said}.*pip install imagecodecs")


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"compression": "zlib"}, {"metadata": None}, {"ome": True}])
def test_every_truncation_is_noticed_on_opening(tmp_path, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, volume((4, 30, 40), "uint8"), photometric="minisblack", **options)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        ends = [o + n for page in tif.pages for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    last = max(ends) - 1
    for size in (last, last // 2, last // 4, 300, 20):
        path.write_bytes(content[:size])
        with pytest.raises(VolumeFormatError, match=r"a\.tif.*copy or download it again") as caught:
            open_stack(path)
        assert "truncated" in str(caught.value)


@settings(max_examples=150, **IN_A_FOLDER)
@given(st.data())
def test_no_damage_escapes_the_error_family(tmp_path, caplog, data):
    path = tmp_path / "fuzzed.tif"
    options = data.draw(st.sampled_from([{}, {"imagej": True}, {"compression": "zlib"}]))
    tifffile.imwrite(path, volume((3, 5, 6), "uint8"), photometric="minisblack", **options)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        with open_stack(path) as stack:
            small = stack.nbytes < 1e6
            outcome = "fuzzed.tif" if not small or stack.read().shape == stack.shape else "wrong shape"
    except MedwaveError as error:
        outcome = str(error)
    assert "fuzzed.tif" in outcome
    assert not caplog.records


def test_real_volumes_read_as_tifffile_reads_them(data_folder):
    files = [
        data_folder / "neurons/real_traced/neuron_b.tif",
        *(data_folder / "neurons/axons_lightsheet").glob("*/*_0.tif"),
    ]
    assert len(files) > 2
    for path in files:
        reads_as(path, tifffile.imread(path))


def test_many_threads_read_one_volume(tmp_path):
    values = volume((8, 40, 40), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", values, compression="zlib", rowsperstrip=7)
    stack = open_stack(tmp_path / "a.tif")
    parts = [(slice(z, z + 2), slice(y, y + 20), slice(5, 35)) for z, y in itertools.product(range(0, 8, 2), (0, 20))]
    with ThreadPoolExecutor(4) as pool:
        for part, got in zip(parts * 8, pool.map(stack.read, parts * 8), strict=True):
            np.testing.assert_array_equal(got, values[part])


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not list what is mapped")
@pytest.mark.parametrize("name", ["a.tif", "a.v3draw"])
def test_a_file_is_mapped_only_while_it_is_read(tmp_path, name):
    """Pages that were read count as memory as long as the file is mapped: of a large file all in the end."""
    image = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)
    path = tmp_path / name
    if name.endswith("tif"):
        tifffile.imwrite(path, image, imagej=True, metadata={"axes": "ZYX"})
    else:
        write_v3draw(path, image)
    with open_stack(path) as volume:
        np.testing.assert_array_equal(volume.read(), image)
        assert str(path) not in Path("/proc/self/maps").read_text()
