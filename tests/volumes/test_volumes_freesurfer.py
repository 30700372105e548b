"""FreeSurfer's linear transforms: geometry as nibabel's MGH headers have it, directions, and the same points."""

import nibabel as nib
import numpy as np
import pytest
from volume_grids import GRIDS, make_grid, some_affine

from medwave.core.errors import GeometryError, InputError, OutputError, VolumeFormatError
from medwave.core.geometry import Grid, transform_points
from medwave.volumes import m3z_command, read_lta, read_transform, write_lta
from medwave.volumes.freesurfer import tkregister_affine

CONFORMED = Grid((256, 256, 256), np.array([[-1.0, 0, 0, 131], [0, 0, 1, -120], [0, -1, 0, 125], [0, 0, 0, 1]]))
LTA = """# transform file /subjects/x.lta
# created by a scanner

type      = {kind} # LINEAR
nxforms   = 1
mean      = 0.0000 0.0000 0.0000
sigma     = 10000.0000
1 4 4
{matrix}
src volume info
valid = 1  # volume info valid
filename = /subjects/x/orig.mgz
volume = 256 256 256
voxelsize = 1.000000000000000e+00 1.000000000000000e+00 1.000000000000000e+00
xras   = -1.000000000000000e+00 0.000000000000000e+00 0.000000000000000e+00
yras   = 0.000000000000000e+00 0.000000000000000e+00 -1.000000000000000e+00
zras   = 0.000000000000000e+00 1.000000000000000e+00 0.000000000000000e+00
cras   = 3.000000000000000e+00 8.000000000000000e+00 -3.000000000000000e+00
dst volume info
valid = 1  # volume info valid
filename = /average/mni.mgz
volume = 182 218 182
voxelsize = 1.000000000000000e+00 1.000000000000000e+00 1.000000000000000e+00
xras   = -1.000000000000000e+00 0.000000000000000e+00 0.000000000000000e+00
yras   = 0.000000000000000e+00 1.000000000000000e+00 0.000000000000000e+00
zras   = 0.000000000000000e+00 0.000000000000000e+00 1.000000000000000e+00
cras   = -1.000000000000000e+00 -17.000000000000000e+00 19.000000000000000e+00
subject fsaverage
fscale 0.15
"""
MNI = Grid((182, 218, 182), np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]]))


def rows(matrix):
    return "\n".join(" ".join(f"{value:.12f}" for value in row) for row in matrix)


def test_types_and_directions(tmp_path):
    """The same map written between voxels and between RAS: source to destination, so fixed to moving is its inverse."""
    ras = some_affine((3.0, 8.0, -3.0))  # source RAS -> destination RAS
    voxels = np.linalg.inv(MNI.affine) @ ras @ CONFORMED.affine
    (tmp_path / "ras.lta").write_text(LTA.format(kind=1, matrix=rows(ras)))
    (tmp_path / "voxels.lta").write_text(LTA.format(kind=0, matrix=rows(voxels)))
    for name in ("ras.lta", "voxels.lta"):
        np.testing.assert_allclose(read_lta(tmp_path / name), np.linalg.inv(ras), atol=1e-8)
        same = read_lta(tmp_path / name, fixed=MNI, moving=CONFORMED)
        np.testing.assert_allclose(same, np.linalg.inv(ras), atol=1e-8)
        turned = read_lta(tmp_path / name, fixed=CONFORMED, moving=MNI)  # made the other way round: its headers say so
        np.testing.assert_allclose(turned, ras, atol=1e-8)


@pytest.mark.parametrize("name", GRIDS)
def test_written_geometry_is_that_of_an_mgh_header(tmp_path, name):
    grid = GRIDS[name]
    write_lta(tmp_path / "a.lta", some_affine(grid.center_mm), grid, MNI)
    text = (tmp_path / "a.lta").read_text()
    values = dict(line.split("=") for line in text[text.index("dst volume") :].splitlines() if "=" in line)
    numbers = {k.strip(): np.array(v.split("#")[0].split(), float) for k, v in values.items() if "name" not in k}
    header = nib.freesurfer.mghformat.MGHImage(np.zeros(grid.shape, np.float32), grid.affine).header
    np.testing.assert_allclose(numbers["cras"], header["Pxyz_c"], atol=1e-4)
    np.testing.assert_allclose(numbers["voxelsize"], header["delta"], atol=1e-5)
    axes = np.stack([numbers[f"{axis}ras"] for axis in "xyz"])
    np.testing.assert_allclose(axes, header["Mdc"], atol=1e-5)
    np.testing.assert_allclose(tkregister_affine(grid), header.get_vox2ras_tkr(), atol=1e-4)


@pytest.mark.parametrize("name", GRIDS)
def test_a_written_matrix_comes_back(tmp_path, name):
    grid = GRIDS[name]
    matrix = some_affine(grid.center_mm)
    write_lta(tmp_path / "a.lta", matrix, grid, MNI, moving_name="m.nii.gz")
    points = grid.to_mm(np.random.default_rng(0).uniform(0, 9, (100, 3)))
    found = read_transform(tmp_path / "a.lta").apply_points_mm(points)
    np.testing.assert_allclose(found, transform_points(matrix, points), atol=1e-9)
    assert "filename = m.nii.gz" in (tmp_path / "a.lta").read_text()


def test_register_dat(tmp_path):
    """The identity of registration by headers: R = T_mov inv(A_mov) A_anat inv(T_anat) takes RAS to itself."""
    fixed, moving = CONFORMED, make_grid((20, 22, 9), angles=(0.1, -0.2, 0.3), spacing_mm=(3, 3, 4))
    ras = some_affine((0, 0, 0))
    r = tkregister_affine(moving) @ np.linalg.inv(moving.affine) @ ras @ fixed.affine
    r = r @ np.linalg.inv(tkregister_affine(fixed))
    (tmp_path / "register.dat").write_text(f"bert\n3.0\n4.0\n0.15\n{rows(r)}\nround\n")
    np.testing.assert_allclose(
        read_transform(tmp_path / "register.dat", fixed=fixed, moving=moving).linear, ras, atol=1e-6
    )
    with pytest.raises(InputError, match="--fixed, --moving"):
        read_transform(tmp_path / "register.dat")


def test_what_cannot_be_read_is_said(tmp_path):
    def written(text):
        (tmp_path / "x.lta").write_text(text)
        return tmp_path / "x.lta"

    with pytest.raises(VolumeFormatError, match=r"x\.lta: not an LTA"):
        read_lta(written("hello"))
    with pytest.raises(VolumeFormatError, match="lta_convert"):
        read_lta(written(LTA.format(kind=14, matrix=rows(np.eye(4)))))
    with pytest.raises(VolumeFormatError, match="not an LTA"):
        read_lta(written(LTA.format(kind=1, matrix=rows(np.eye(4)[:3]))))
    with pytest.raises(VolumeFormatError, match="describe both volumes"):
        read_lta(written(LTA.format(kind=0, matrix=rows(np.eye(4))).replace("valid = 1", "valid = 0")))
    with pytest.raises(GeometryError, match="cannot be inverted"):
        read_lta(written(LTA.format(kind=1, matrix=rows(np.diag([1.0, 1, 0, 1])))))
    with pytest.raises(OutputError, match=r"\.lta"):
        write_lta(tmp_path / "x.txt", np.eye(4), MNI, MNI)


def test_the_command_for_m3z_survives_blanks():
    assert m3z_command("a b.nii.gz", "m.mgz") == (
        "mri_warp_convert --initk 'a b.nii.gz' --outm3z 'a b.m3z' --insrcgeom m.mgz"
    )
