"""Affine files: ITK moves points as the matrix does, and every linear kind of ITK transform is understood."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from volume_grids import rotation, some_affine

from medwave.core.errors import GeometryError, InputError, MissingFileError, OutputError, VolumeFormatError
from medwave.core.geometry import transform_points
from medwave.volumes import read_affine, read_transform, write_affine

POINTS = np.random.default_rng(0).uniform(-80, 80, (20, 3))
LPS = np.array([-1, -1, 1])


def moved_by_itk(transform, points_ras):
    return np.array([transform.TransformPoint((p * LPS).tolist()) for p in points_ras]) * LPS


@pytest.mark.parametrize("ending", ["tfm", "txt", "mat"])
def test_itk_moves_points_as_the_matrix_does(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    matrix = some_affine((3, 4, 5))
    write_affine(path, matrix)
    expected = transform_points(matrix, POINTS)
    np.testing.assert_allclose(moved_by_itk(sitk.ReadTransform(str(path)), POINTS), expected, atol=1e-9)
    np.testing.assert_allclose(read_affine(path), matrix, atol=1e-12)
    np.testing.assert_allclose(read_transform(path).apply_points_mm(POINTS), expected, atol=1e-9)
    assert list(tmp_path.iterdir()) == [path]


@settings(deadline=None, max_examples=30)
@given(
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    scales=st.tuples(*[st.floats(0.2, 4)] * 3),
    shift=st.tuples(*[st.floats(-500, 500)] * 3),
    ending=st.sampled_from(["tfm", "mat"]),
)
def test_round_trip_of_any_matrix(tmp_path_factory, angles, scales, shift, ending):
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(angles) @ np.diag(scales) @ rotation(angles[::-1])
    matrix[:3, 3] = shift
    path = tmp_path_factory.mktemp("affine") / f"a.{ending}"
    write_affine(path, matrix)
    np.testing.assert_allclose(read_affine(path), matrix, atol=1e-10)


def linear_transforms():
    center, shift = (10.0, -20.0, 30.0), (1.0, 2.0, -3.0)
    versor = (0.1, -0.2, 0.05, float(np.sqrt(1 - 0.0525)))
    affine = sitk.AffineTransform(3)
    affine.SetMatrix([1.1, 0.1, 0, 0, 0.9, -0.1, 0.05, 0, 1])
    affine.SetTranslation(shift)
    affine.SetCenter(center)
    euler = sitk.Euler3DTransform(center, 0.1, 0.2, -0.3, shift)
    rigid = sitk.VersorRigid3DTransform(versor, shift, center)
    return {
        "affine": affine,
        "euler": euler,
        "euler zyx": sitk.Euler3DTransform(euler),
        "versor": sitk.VersorTransform(versor, center),
        "versor rigid": rigid,
        "similarity": sitk.Similarity3DTransform(1.2, versor, shift, center),
        "scale": sitk.ScaleTransform(3, (1.1, 0.9, 2.0)),
        "scale versor": sitk.ScaleVersor3DTransform((1.1, 1.2, 0.9), versor, shift, center),
        "scale skew versor": sitk.ScaleSkewVersor3DTransform((1.1, 1.2, 0.9), [0.01] * 6, versor, shift, center),
        "translation": sitk.TranslationTransform(3, shift),
        "identity": sitk.Transform(3, sitk.sitkIdentity),
        "composite": sitk.CompositeTransform([affine, euler, sitk.TranslationTransform(3, shift)]),
        "nested composite": sitk.CompositeTransform([sitk.CompositeTransform([affine, rigid]), euler]),
    }


@pytest.mark.parametrize("name", linear_transforms())
@pytest.mark.parametrize("ending", ["tfm", "h5"])
def test_every_linear_kind_is_understood(tmp_path, name, ending):
    transform = linear_transforms()[name]
    if name == "euler zyx":
        transform.SetComputeZYX(True)
    path = tmp_path / f"t.{ending}"
    if name == "nested composite":
        transform.FlattenTransform()  # ITK cannot write a nested one
    sitk.WriteTransform(transform, str(path))
    expected = moved_by_itk(transform, POINTS)
    np.testing.assert_allclose(transform_points(read_affine(path), POINTS), expected, atol=1e-9)
    np.testing.assert_allclose(read_transform(path).apply_points_mm(POINTS), expected, atol=1e-9)


@pytest.mark.parametrize(
    "kind", ["AffineTransform_double_3_3", "AffineTransform_float_3_3", "MatrixOffsetTransformBase_double_3_3"]
)
def test_text_files_of_other_programs(tmp_path, kind):
    path = tmp_path / "other.txt"
    path.write_text(
        f"#Insight Transform File V1.0\n# Transform 0\nTransform: {kind}\n"
        "Parameters: 0 -1 0 1 0 0 0 0 2 4 5 6\nFixedParameters: 1 2 3\n"
    )
    # by hand: y = M (x - c) + c + t in LPS, with c = (1, 2, 3)
    matrix, center, shift = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 2]]), np.array([1, 2, 3]), np.array([4, 5, 6])
    expected = ((POINTS * LPS - center) @ matrix.T + center + shift) * LPS
    np.testing.assert_allclose(transform_points(read_affine(path), POINTS), expected, atol=1e-9)


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(3),
        np.zeros((4, 4)),
        np.diag([1, 1, 0, 1.0]),
        np.diag([1, 1, 1, 2.0]),
        np.full((4, 4), np.nan),
        np.array([[1, 0, 0, np.inf], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    ],
)
def test_matrices_that_are_no_affine_are_refused(tmp_path, matrix):
    with pytest.raises(GeometryError, match="invertible 4x4"):
        write_affine(tmp_path / "a.tfm", matrix)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_linear_transform(tmp_path):
    def refused(name, kind, pattern):
        with pytest.raises(kind, match=pattern) as caught:
            read_affine(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)

    np.savetxt(tmp_path / "flirt.mat", np.eye(4))
    for name in ("text.tfm", "text.h5", "text.mat", "text.nii"):
        (tmp_path / name).write_text("hello")
    sitk.WriteTransform(sitk.AffineTransform(2), str(tmp_path / "flat.tfm"))
    sitk.WriteTransform(sitk.BSplineTransformInitializer(sitk.Image(9, 9, 9, 1), [2] * 3), str(tmp_path / "b.tfm"))
    singular = sitk.ScaleTransform(3, (1, 1, 0))
    sitk.WriteTransform(singular, str(tmp_path / "singular.tfm"))
    for name in ("flirt.mat", "text.tfm", "text.h5", "text.mat", "text.nii"):
        refused(name, VolumeFormatError, "not an ITK transform file")
    refused("flat.tfm", GeometryError, "3-D transform is needed, this one has 2")
    refused("b.tfm", GeometryError, "linear transform is needed.*BSpline")
    refused("singular.tfm", GeometryError, "invertible")
    refused("gone.tfm", MissingFileError, "no such file")
    refused("", InputError, "folder")


def test_endings_and_folders_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match=r"a\.csv.*\.tfm"):
        write_affine(tmp_path / "a.csv", np.eye(4))
    with pytest.raises(OutputError, match="create it"):
        write_affine(tmp_path / "absent" / "a.tfm", np.eye(4))


def test_a_text_transform_cut_off_before_its_parameters_is_refused(tmp_path):
    """ITK reads such a file as the identity without a word."""
    path = tmp_path / "cut.tfm"
    write_affine(path, some_affine((1, 2, 3)))
    whole = path.read_text()
    path.write_text(whole[: whole.index("Parameters:")])
    with pytest.raises(VolumeFormatError, match=r"cut\.tfm: damaged: a transform without its Parameters"):
        read_affine(path)
