"""Known values, axioms and outside references of the registration measures."""

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from medwave.core.errors import GeometryError, InputError
from medwave.fields import affine_displacement, integrate, positions
from medwave.metrics import (
    dice,
    folding,
    inverse_consistency_mm,
    log_jacobian_sd,
    surface_distances,
    target_registration_error_mm,
)

label_maps = arrays(np.int16, (5, 6, 7), elements=st.integers(0, 4))


def blobs(seed: int, shape: tuple[int, int, int] = (24, 26, 28), labels: int = 4) -> np.ndarray:
    """Compact structures, as the largest of several smooth noises."""
    noise = np.random.default_rng(seed).normal(size=(labels, *shape))
    return np.argmax([ndimage.gaussian_filter(n, 3) for n in noise], axis=0)


# --- dice ------------------------------------------------------------------------------------------------------------


def test_dice_of_known_overlaps() -> None:
    a = np.zeros((4, 4, 4), dtype=np.uint8)
    b = a.copy()
    a[0], b[0, :2] = 7, 7  # 16 and 8 voxels, 8 shared
    a[2], b[3] = 9, 9  # disjoint
    b[1, 0, 0] = 3  # in b only
    assert dice(a, b) == {3: 0.0, 7: pytest.approx(2 * 8 / 24), 9: 0.0}
    chosen = dice(a, b, structures=[7, 50])
    assert list(chosen) == [7, 50]
    assert np.isnan(chosen[50])
    assert dice(a * 0, b * 0) == {}


@settings(deadline=None, max_examples=25)
@given(a=label_maps, b=label_maps)
def test_dice_axioms(a: np.ndarray, b: np.ndarray) -> None:
    overlap = dice(a, b)
    assert overlap == dice(b, a)
    assert set(overlap) == (set(np.unique(a)) | set(np.unique(b))) - {0}
    assert all(0 <= value <= 1 for value in overlap.values())
    assert all(value == 1 for value in dice(a, a).values())
    for label, value in overlap.items():
        assert value == pytest.approx(
            2 * ((a == label) & (b == label)).sum() / ((a == label).sum() + (b == label).sum())
        )


@pytest.mark.parametrize("convert", [np.int64, np.float64, lambda x: x * 100_000_000, lambda x: x - 9])
def test_dice_does_not_depend_on_dtype_or_numbering(convert: type) -> None:
    a, b = blobs(0) + 1, blobs(1) + 1
    expected = list(dice(a, b).values())
    assert list(dice(convert(a), convert(b)).values()) == expected


def test_dice_agrees_with_monai() -> None:
    from monai.metrics import compute_dice

    a, b = blobs(2), blobs(3)
    theirs = compute_dice(one_hot(a), one_hot(b), include_background=False)[0]
    np.testing.assert_allclose(list(dice(a, b).values()), theirs.numpy(), atol=1e-6)


def one_hot(labels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([labels == k for k in range(labels.max() + 1)])[None])


# --- surfaces --------------------------------------------------------------------------------------------------------


def test_distances_between_shifted_boxes_are_known() -> None:
    a = np.zeros((20, 20, 20), dtype=np.uint8)
    b = a.copy()
    a[4:10, 5:15, 5:15] = 1
    b[7:13, 5:15, 5:15] = 1  # three voxels further along the first axis
    found = surface_distances(a, b, (2.0, 1.0, 1.0))[1]
    assert found["hd95_mm"] == pytest.approx(6.0)
    assert 0 < found["assd_mm"] < 6
    assert surface_distances(a, b, (1.0, 1.0, 1.0))[1]["hd95_mm"] == pytest.approx(3.0)


def test_two_single_voxels_have_their_distance() -> None:
    a, b = np.zeros((2, 9, 9, 9), dtype=np.int32)
    a[1, 2, 3], b[4, 6, 3] = 5, 5
    length = np.hypot(3 * 0.5, 4 * 2.0)
    assert surface_distances(a, b, (0.5, 2.0, 1.0)) == {
        5: {"hd95_mm": pytest.approx(length), "assd_mm": pytest.approx(length)}
    }


def test_distance_of_an_absent_structure() -> None:
    a, b = np.zeros((2, 5, 5, 5), dtype=np.int32)
    a[2, 2, 2] = 1
    found = surface_distances(a, b, (1, 1, 1), structures=[1, 2])
    assert found[1] == {"hd95_mm": np.inf, "assd_mm": np.inf}
    assert np.isnan(found[2]["hd95_mm"])
    assert np.isnan(found[2]["assd_mm"])


@settings(deadline=None, max_examples=15)
@given(a=label_maps, b=label_maps, scale=st.floats(0.1, 10))
def test_distance_axioms(a: np.ndarray, b: np.ndarray, scale: float) -> None:
    spacing = np.array([1.0, 1.5, 0.7])
    forth, back, scaled = (
        surface_distances(a, b, spacing),
        surface_distances(b, a, spacing),
        surface_distances(a, b, scale * spacing),
    )
    for label, found in forth.items():
        assert found == pytest.approx(back[label])
        assert scaled[label] == pytest.approx({name: scale * value for name, value in found.items()})
        assert found["assd_mm"] >= 0
    assert all(set(found.values()) == {0.0} for found in surface_distances(a, a, spacing).values())


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy.*:FutureWarning")  # monai calls its own old argument
def test_surface_distances_agree_with_monai() -> None:
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    a, b = blobs(4), blobs(5)
    spacing = [1.0, 1.3, 0.8]
    options = {"include_background": False, "spacing": spacing}
    hd95 = compute_hausdorff_distance(one_hot(a), one_hot(b), percentile=95, **options)[0]
    assd = compute_average_surface_distance(one_hot(a), one_hot(b), symmetric=True, **options)[0]
    found = surface_distances(a, b, spacing)
    np.testing.assert_allclose([found[k]["hd95_mm"] for k in (1, 2, 3)], hd95.numpy(), rtol=1e-5)
    np.testing.assert_allclose([found[k]["assd_mm"] for k in (1, 2, 3)], assd.numpy(), rtol=1e-5)


@pytest.mark.data
def test_surface_distances_of_real_brains_equal_distance_transforms(data_folder) -> None:
    maps = [
        np.asanyarray(nib.load(data_folder / f"brains/benchmark/{name}_labels.nii.gz").dataobj)[40:120, 40:140, 30:120]
        for name in ("1003", "1009")
    ]
    found = surface_distances(*maps, (1.0, 1.0, 1.0))
    assert len(found) > 100
    for label in (4, 59, 45):  # ventricle, thalamus, white matter: small to large
        masks = [m == label for m in maps]
        edges = [m & ~ndimage.binary_erosion(m) for m in masks]
        one, two = (ndimage.distance_transform_edt(~edges[1 - n])[edges[n]] if edges[n].any() else None for n in (0, 1))
        assert one is not None
        assert two is not None
        assert found[label]["hd95_mm"] == pytest.approx(max(np.percentile(one, 95), np.percentile(two, 95)))
        assert found[label]["assd_mm"] == pytest.approx(np.concatenate([one, two]).mean())


# --- fields ----------------------------------------------------------------------------------------------------------


def test_folding_counts_the_folded_interior() -> None:
    field = np.zeros((3, 10, 11, 12), dtype=np.float32)
    assert folding(field) == (0.0, 0)
    p = positions(torch.zeros(1, 3, 10, 11, 12))[0].numpy()
    mirrored = field.copy()
    mirrored[1] = -2 * p[1]
    assert folding(mirrored) == (1.0, 8 * 9 * 10)
    local = field.copy()
    local[0, 4], local[0, 6] = 1.0, -1.0  # the planes on either side of 5 swap
    found = folding(local)
    assert found.count == 1 * 9 * 10  # only the plane 5 between them: slope -1, determinant 0
    assert found.share == pytest.approx(found.count / (8 * 9 * 10))
    mask = np.zeros((10, 11, 12))
    mask[5, 3, 2:5] = mask[2, 3, 4] = 1
    assert folding(local, mask) == (0.75, 3)


def test_log_jacobian_sd_of_known_maps() -> None:
    matrix = np.diag([1.2, 0.9, 1.1, 1.0])
    assert log_jacobian_sd(affine_displacement(matrix, (8, 9, 10))[0].numpy()) < 1e-5
    p = positions(torch.zeros(1, 3, 12, 6, 6, dtype=torch.float64))[0].numpy()
    field = np.zeros_like(p)
    field[0] = 0.05 * p[0] ** 2
    expected = np.log(1 + 0.1 * np.arange(1, 11)).std()
    assert log_jacobian_sd(field) == pytest.approx(expected)
    half = p[0] < 6
    assert log_jacobian_sd(field, half) == pytest.approx(np.log(1 + 0.1 * np.arange(1, 6)).std())
    assert np.isfinite(log_jacobian_sd(-3 * p))  # clipped, not nan


def test_inverse_consistency_in_millimetres() -> None:
    shape = (9, 10, 11)
    shift = np.zeros((3, *shape))
    shift[0], shift[2] = 1.5, -0.5
    affine = np.diag([2.0, 1.0, 4.0, 1.0])
    assert inverse_consistency_mm(shift, -shift, affine) == pytest.approx(0.0)
    assert inverse_consistency_mm(shift, 0 * shift, affine) == pytest.approx(np.hypot(3.0, 2.0))
    mask = np.zeros(shape)
    mask[4, 4, 4] = 1
    patch = np.zeros_like(shift)
    patch[1, 4, 4, 4] = 3.0
    assert inverse_consistency_mm(0 * shift, patch, affine, mask) == pytest.approx(3.0)
    velocity = torch.from_numpy(np.sin(np.indices(shape) / 3.0))[None]
    flow, back = integrate(velocity)[0].numpy(), integrate(-velocity)[0].numpy()
    assert inverse_consistency_mm(flow, back, affine) < 0.1 * inverse_consistency_mm(flow, flow, affine)


def test_measures_take_read_only_arrays() -> None:
    field = np.zeros((3, 5, 5, 5), dtype=np.float32)
    field.setflags(write=False)
    assert log_jacobian_sd(field) == 0
    assert inverse_consistency_mm(field, field, np.eye(4)) == 0


def test_target_registration_error() -> None:
    a = np.array([[0.0, 0, 0], [1, 2, 3]])
    np.testing.assert_allclose(target_registration_error_mm(a, a + np.array([3, 4, 0])), [5, 5])
    np.testing.assert_allclose(target_registration_error_mm(a, a), [0, 0])


# --- errors ----------------------------------------------------------------------------------------------------------


def test_messages_name_the_rule_and_what_came() -> None:
    labels = np.zeros((4, 4, 4), dtype=int)
    field = np.zeros((3, 4, 4, 4))
    with pytest.raises(GeometryError, match="one grid"):
        dice(labels, labels[1:])
    with pytest.raises(InputError, match="whole numbers"):
        dice(labels + 0.5, labels)
    with pytest.raises(InputError, match="whole numbers"):
        dice(labels * np.nan, labels)
    with pytest.raises(GeometryError, match="spacing_mm"):
        surface_distances(labels, labels, (1, 0, 1))
    with pytest.raises(GeometryError, match=r"\(3, D, H, W\)"):
        folding(field[:2])
    with pytest.raises(GeometryError, match="mask"):
        folding(field, labels[1:])
    with pytest.raises(InputError, match="empty"):
        inverse_consistency_mm(field, field, np.eye(4), labels)
    with pytest.raises(InputError, match="outermost"):
        folding(field[:, :2])
    with pytest.raises(GeometryError, match="same M"):
        target_registration_error_mm(np.zeros((2, 3)), np.zeros((3, 3)))
