"""Folders of numbered slices, and the formats that are read whole: order, axes, voxel sizes, refusals."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image
from stack_cases import reads_as, refused, volume

from medwave.core.errors import GeometryError, InputError, MissingFileError, VolumeFormatError
from medwave.volumes import open_stack


def write_slices(folder, values, name="slice_{}.tif", first=0, compression=None):
    folder.mkdir(exist_ok=True)
    for z, page in enumerate(values, first):
        path = folder / name.format(z)
        if path.suffix == ".tiff":
            Image.fromarray(page).save(path, compression="tiff_lzw")
        elif path.suffix == ".tif":
            tifffile.imwrite(path, page, compression=compression)
        else:
            Image.fromarray(page).save(path)
    return folder


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("{}.tif", "uint16"),
        ("a2b-{}.tif", "float32"),
        ("{:06d}.png", "uint8"),
        ("z{}_ch.png", "uint16"),
        ("{}.bmp", "uint8"),
        ("{}.tiff", "uint8"),
    ],
)
def test_slices_in_the_order_of_their_numbers(tmp_path, name, dtype):
    values = volume((13, 5, 7), dtype)
    folder = write_slices(tmp_path / "cell", values, name, first=3)
    (folder / "notes.txt").write_text("not a slice")
    (folder / ".hidden.tif").write_text("not a slice")
    stack = reads_as(folder, values)
    assert stack.spacing_um is None
    assert stack.chunks == (1, 5, 7)


def test_jpeg_slices_keep_their_shape(tmp_path):
    values = np.full((4, 9, 16), 90, np.uint8)
    reads_as(write_slices(tmp_path / "cell", values, "{}.jpg"), values)


def test_only_the_slices_of_a_box_are_decoded(tmp_path):
    values = volume((6, 40, 50), "uint8")
    for ending in ("tif", "png"):
        folder = write_slices(tmp_path / ending, values, "{}." + ending, compression="zlib")
        for z in (0, 1, 5):
            content = (folder / f"{z}.{ending}").read_bytes()
            spoiled = content[:-900] if ending == "png" else content[:600] + bytes(200) + content[800:]
            (folder / f"{z}.{ending}").write_bytes(spoiled)
        part = (slice(2, 5), slice(3, 9), slice(0, 50))
        np.testing.assert_array_equal(open_stack(folder).read(part), values[part])
    with pytest.raises(VolumeFormatError, match=r"1\.tif: .*damaged"):
        open_stack(tmp_path / "tif").read((slice(1, 3), slice(0, 40), slice(0, 50)))
    with pytest.raises(VolumeFormatError, match=r"1\.png: the slice is damaged"):
        open_stack(tmp_path / "png").read((slice(1, 3), slice(0, 40), slice(0, 50)))


def test_folders_that_are_no_volume(tmp_path):
    values = volume((5, 6, 7), "uint8")

    def case(name, change, kind, pattern):
        folder = write_slices(tmp_path / name, values)
        change(folder)
        refused(folder, kind, pattern)

    def gap(folder):
        (folder / "slice_2.tif").unlink()

    def twice(folder):
        tifffile.imwrite(folder / "slice_02.tif", values[2])

    def shape(folder):
        tifffile.imwrite(folder / "slice_5.tif", values[0, :5])

    def dtype(folder):
        tifffile.imwrite(folder / "slice_5.tif", values[0].astype(np.uint16))

    def second(folder):
        tifffile.imwrite(folder / "mask_0.tif", values[0])

    def ending(folder):
        Image.fromarray(values[0]).save(folder / "slice_0.png")

    def colour(folder):
        tifffile.imwrite(folder / "slice_5.tif", np.stack([values[0]] * 3, -1), photometric="rgb")

    def pages(folder):
        tifffile.imwrite(folder / "slice_5.tif", values)

    def nameless(folder):
        tifffile.imwrite(folder / "mean.tif", values[0])

    def damaged(folder):
        (folder / "slice_5.tif").write_bytes(b"hello")

    def truncated(folder):
        (folder / "slice_5.tif").write_bytes((folder / "slice_0.tif").read_bytes()[:100])

    case("gap", gap, GeometryError, "number 2 is missing between 0 and 4")
    case("twice", twice, InputError, r"same number, slice_02\.tif and slice_2\.tif")
    case("shape", shape, GeometryError, r"equal in shape and type.*slice_0\.tif.*slice_5\.tif is \(5, 7\)")
    case("dtype", dtype, GeometryError, r"uint8, slice_5\.tif is \(6, 7\) uint16")
    case("second", second, InputError, r"one series.*mask_#\.tif, slice_#\.tif.*folder of its own")
    case("ending", ending, InputError, r"slice_#\.png, slice_#\.tif")
    case("nameless", nameless, InputError, r"mean\.tif has none")
    for name, change, pattern in (
        ("colour", colour, r"slice_5\.tif: .*in colour"),
        ("pages", pages, r"slice_5\.tif: a slice is one page, this file has 5"),
        ("damaged", damaged, r"slice_5\.tif: not a TIFF"),
        ("truncated", truncated, r"slice_5\.tif: .*truncated"),
    ):
        folder = write_slices(tmp_path / name, values)
        change(folder)
        with pytest.raises(VolumeFormatError, match=pattern):
            reads_as(folder, values)
    refused(write_slices(tmp_path / "one", values[:1]), GeometryError, "single slice")
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", InputError, "numbered images.*has none")
    refused(tmp_path / "gone", MissingFileError, "no such file or folder")
    refused(tmp_path / "one", InputError, "only channel 0", channel=1)


def test_pictures_in_colour_or_damaged(tmp_path):
    colour = np.zeros((4, 6, 7, 3), np.uint8)
    write_slices(tmp_path / "rgb", colour, "{}.png")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.png").write_bytes(b"hello")
    for name, pattern in (("rgb", r"0\.png: .*in colour \(mode RGB\)"), ("bad", r"0\.png: not a readable image")):
        with pytest.raises(VolumeFormatError, match=pattern):
            reads_as(tmp_path / name, colour)


def test_images_of_the_other_formats_are_turned_to_z_y_x(tmp_path):
    values = volume((4, 5, 6), "int16")
    affine = np.diag([0.3, 0.25, 2.0, 1.0]) / 1000
    affine[3, 3] = 1
    nib.save(nib.Nifti1Image(values.T, affine), tmp_path / "a.nii.gz")
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.0003, 0.00025, 0.002))
    for name in ("b.nrrd", "c.mha"):
        sitk.WriteImage(image, str(tmp_path / name))
    for name in ("a.nii.gz", "b.nrrd", "c.mha"):
        stack = reads_as(tmp_path / name, values)
        assert stack.spacing_um == pytest.approx((2, 0.25, 0.3), rel=1e-5)
    refused(tmp_path / "a.nii.gz", InputError, "only channel 0", channel=1)
    nib.save(nib.Nifti1Image(values[0].T, affine), tmp_path / "flat.nii")
    refused(tmp_path / "flat.nii", GeometryError, "stack its slices")


def test_pictures_beyond_the_bound_of_pillow_are_refused_and_below_it_give_no_warning(tmp_path, monkeypatch, recwarn):
    values = volume((3, 6, 7), "uint8")
    folder = write_slices(tmp_path / "s", values, "z{}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    reads_as(folder, values)
    assert not recwarn
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    refused(folder, VolumeFormatError, "z0.png.*more than 40 pixels.*save the slices as TIFF")


@pytest.mark.parametrize(
    ("units", "um"),
    [
        ('space units: "microns" "microns" "microns"', (1, 1, 1)),
        ('space units: "um" "um" "um"', (1, 1, 1)),
        ('space units: "µm" "µm" "µm"', (1, 1, 1)),
        ('space units: "nm" "um" "mm"', (1000, 1, 0.001)),
        ('space units: "m" "m" "m"', (1e6, 1e6, 1e6)),
        ('units: "um" "um" "um"', (1, 1, 1)),
        ('space units: "mm" "mm" "mm"', (1000, 1000, 1000)),
        ('space units: "parsec" "" "pixel"', (1000, 1000, 1000)),
        ("content: units: none", (1000, 1000, 1000)),
    ],
)
@pytest.mark.parametrize(("ending", "encoding"), [("nrrd", "utf-8"), ("nhdr", "latin-1")])
def test_units_of_an_nrrd_header_count(tmp_path, units, um, ending, encoding):
    values = volume((4, 5, 6), "uint8")
    header = ["NRRD0005", "type: uint8", "dimension: 3"]
    if units.startswith("units"):
        header += ["sizes: 6 5 4", "spacings: 0.3 0.25 2", units]
    else:
        header += ["space dimension: 3", "sizes: 6 5 4", "space directions: (0.3,0,0) (0,0.25,0) (0,0,2)", units]
    header += ["encoding: raw", *(["data file: a.raw"] if ending == "nhdr" else []), "\n"]
    (tmp_path / "a.raw").write_bytes(values.tobytes())
    (tmp_path / f"a.{ending}").write_bytes("\n".join(header).encode(encoding) + values.tobytes() * (ending == "nrrd"))
    stack = reads_as(tmp_path / f"a.{ending}", values)
    assert stack.spacing_um == pytest.approx(np.multiply((2, 0.25, 0.3), um))
