"""The affine start against a known truth: from anywhere, on any grid, in any contrast; and when it must say no."""

import numpy as np
import pytest
import torch
from affine_phantom import error_mm, grid_of, head, motion
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medwave.core.geometry import Grid, Volume
from medwave.engine.affine import align
from medwave.volumes import read_volume

SMALL = motion((10, -8, 5), (5, 10, -6))
STRETCHED = motion((10, -8, 5), (5, 10, -6), (1.1, 0.92, 1.05), 0.06)


@pytest.fixture(scope="module")
def fixed() -> Volume:
    return head(grid_of())


def world(grid):
    return grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1))


def around(matrix):
    """The usual grid where a matrix has put the head."""
    return grid_of(center_mm=matrix[:3, 3])


def check(result, matrix, mean_mm=0.5):
    assert not result.failed, result.reason
    assert result.reason == ""
    mean, largest = error_mm(result.matrix, matrix)
    assert mean < mean_mm
    assert largest < 2 * mean_mm
    np.testing.assert_array_equal(result.matrix[3], [0, 0, 0, 1])
    assert 1 <= result.similarity_before <= result.similarity_after + 1e-9


# --- from anywhere ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "matrix",
    [
        motion(),
        motion((0, -40, 40), (60, 0, 0)),
        STRETCHED,
        motion((25, -20, 30), (60, -60, 60), (1.1, 0.92, 1.05), 0.06),
    ],
    ids=["still", "40 y and z, 60 mm", "affine", "affine, 60 mm"],
)
def test_a_known_matrix_is_found_from_far_away(fixed, matrix):
    check(align(fixed, head(around(matrix), matrix, seed=1)), matrix)


@pytest.mark.parametrize("degrees", [(180, 0, 0), (170, 10, -15)])
def test_a_header_that_lies_about_orientation(fixed, degrees):
    matrix = motion(degrees, (5, 10, -6))
    check(align(fixed, head(grid_of(), matrix, seed=1)), matrix)


# --- any grid --------------------------------------------------------------------------------------------------------

AXES = np.eye(3)[[2, 0, 1]] * [-1, 1, 1]
OBLIQUE = Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()


GRIDS = {
    "coarse slices": grid_of((3.0, 4.0, 6.0), (60, 50, 28)),
    "fine": grid_of((2.0, 2.0, 2.0), (90, 100, 84)),
    "thick slices": grid_of((1.5, 1.5, 8.0), (120, 130, 18)),
    "other axes": grid_of((3.0, 4.0, 5.0), (60, 50, 36), turn=AXES),
    "oblique": grid_of((4.0, 3.0, 4.0), (56, 72, 56), turn=OBLIQUE),
    "cut low": grid_of((4.0, 4.0, 4.0), (48, 52, 26), center_mm=(0, 0, 30)),
    "cut side": grid_of((4.0, 4.0, 4.0), (28, 52, 44), center_mm=(25, 0, 0)),
    "slab": grid_of((2.0, 2.0, 5.0), (96, 100, 8), center_mm=(0, 0, 20)),
}


@pytest.mark.parametrize("name", ["thick slices", "other axes", "cut low", "slab"])
def test_other_voxels_and_cut_views(fixed, name):
    check(align(fixed, head(GRIDS[name], SMALL, seed=1)), SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRIDS)
def test_other_voxels_and_cut_views_of_either_image(fixed, name):
    other = head(GRIDS[name], SMALL, seed=1)
    check(align(fixed, other), SMALL)
    check(align(other, fixed), np.linalg.inv(SMALL))


@pytest.mark.slow
def test_the_matrix_does_not_depend_on_the_axis_order_of_files(fixed):
    moving = head(grid_of(), SMALL, seed=1)
    expected = align(fixed, moving).matrix
    flipped_affine = fixed.grid.affine @ np.array(
        [[0, 0, -1, fixed.grid.shape[0] - 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]
    )
    data = fixed.data.transpose(1, 2, 0)[:, :, ::-1]
    turned = Volume(data, Grid(data.shape, flipped_affine), "turned")
    np.testing.assert_allclose(world(turned.grid)[3, 4, 5], world(fixed.grid)[-6, 3, 4])
    assert error_mm(align(turned, moving).matrix, expected)[0] < 0.1


# --- any contrast ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "contrast", [lambda v: 1.2 - v, lambda v: 0.3 + 2 * np.abs(v - 0.6)], ids=["inverted", "other"]
)
def test_other_contrasts(fixed, contrast):
    matrix = motion((20, -28, 15), (5, 10, -6))
    check(align(fixed, head(grid_of(), matrix, contrast, seed=1)), matrix)


def test_units_of_intensity_and_integers_do_not_matter(fixed):
    moving = head(grid_of(), SMALL, seed=1)
    scaled = Volume(moving.data * 0.01 - 5, moving.grid, "scaled")
    check(align(Volume(fixed.data.astype(np.uint16), fixed.grid), scaled), SMALL)


@pytest.mark.slow
def test_much_noise_and_an_uneven_background():
    rng = np.random.default_rng(3)
    images = []
    for matrix in (motion(), SMALL):
        image = head(grid_of(), matrix)
        images.append(Volume(np.abs(image.data + rng.normal(0, 60, image.data.shape)).astype(np.float32), image.grid))
    check(align(*images), SMALL, mean_mm=1.0)


# --- kinds, starts, masks --------------------------------------------------------------------------------------------


def test_rigid_stays_rigid(fixed):
    matrix = motion((25, -20, 30), (60, -60, 60))
    for truth, tolerance_mm in ((matrix, 0.5), (STRETCHED, 6.0)):
        result = align(fixed, head(around(truth), truth, seed=1), kind="rigid")
        linear = result.matrix[:3, :3]
        np.testing.assert_allclose(linear @ linear.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(linear) == pytest.approx(1, abs=1e-12)
        assert error_mm(result.matrix, truth)[0] < tolerance_mm


def test_a_start_takes_the_place_of_the_search(fixed):
    moving = head(grid_of(), SMALL, seed=1)
    check(align(fixed, moving, start=motion((5, -5, 2), (8, 8, -8))), SMALL)
    upside_down = align(fixed, moving, start=motion((180, 0, 0), (5, 10, -6)))
    assert error_mm(upside_down.matrix, SMALL)[0] > 30


def ball(volume, center_mm, radius_mm):
    return np.linalg.norm(world(volume.grid) - center_mm, axis=-1) < radius_mm


@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_what_is_left_out_has_no_say(fixed, role):
    moving = head(grid_of(), SMALL, seed=1)
    image = fixed if role == "fixed" else moving
    lesion = ball(image, (20, 10, 5), 18)
    matrices = []
    for seed in (0, 1):
        garbage = np.random.default_rng(seed).uniform(300, 900, image.data.shape)
        spoiled = Volume(np.where(lesion, garbage, image.data).astype(np.float32), image.grid)
        pair = (spoiled, moving) if role == "fixed" else (fixed, spoiled)
        result = align(*pair, **{f"exclude_{role}": lesion})
        check(result, SMALL)
        matrices.append(result.matrix)
    np.testing.assert_array_equal(*matrices)


@pytest.mark.slow
def test_leaving_out_a_mass_beside_the_head_helps(fixed):
    moving = head(grid_of(), SMALL, seed=1)
    mass = ball(moving, (60, 40, 5), 35)
    spoiled = Volume(np.where(mass, 3000, moving.data).astype(np.float32), moving.grid)
    misled = error_mm(align(fixed, spoiled).matrix, SMALL)[0]
    result = align(fixed, spoiled, exclude_moving=mass)
    check(result, SMALL)
    assert error_mm(result.matrix, SMALL)[0] < misled


def test_brain_masks_of_heads_with_skull_and_a_mask_of_a_few_voxels(fixed):
    matrix = motion((25, -20, 30), (60, -60, 60))
    heads, masks = [], []
    for image in (fixed, head(around(matrix), matrix, seed=1)):
        brain = image.data > 0
        shell = ndimage.binary_dilation(brain, iterations=3) & ~ndimage.binary_dilation(brain)
        skull = np.random.default_rng(3).uniform(500, 1500, brain.shape)
        heads.append(Volume(np.where(shell, skull, image.data).astype(np.float32), image.grid))
        masks.append(~ndimage.binary_dilation(brain))
    check(align(*heads, exclude_fixed=masks[0], exclude_moving=masks[1]), matrix)
    nearly_all = np.ones(fixed.grid.shape, dtype=bool)
    nearly_all[24, 26, 22] = False  # one voxel says nothing about place: the mask cannot be followed
    check(align(fixed, head(grid_of(), SMALL, seed=1), exclude_fixed=nearly_all), SMALL)


# --- several channels ------------------------------------------------------------------------------------------------


def shells(grid, matrix=None):
    """Balls within balls, which say where their middle is and nothing about turns."""
    middle = np.zeros(3) if matrix is None else matrix[:3, 3]
    radius_mm = np.linalg.norm(world(grid) - middle, axis=-1)
    return Volume(np.float32(np.where(radius_mm < 75, 500 + 300 * np.cos(radius_mm / 8), 0)), grid, "shells")


FINER = grid_of((3.0, 3.0, 3.5), (64, 70, 50), turn=OBLIQUE)


def test_what_one_channel_cannot_see_another_can(fixed):
    matrix = motion((20, -28, 15), (5, 10, -6))
    first = shells(grid_of()), shells(grid_of(), matrix)
    assert error_mm(align(*first, kind="rigid").matrix, matrix)[0] > 5
    for channel in ((fixed, head(grid_of(), matrix, seed=1), 1.0), (head(FINER), head(FINER, matrix, seed=1), 3.0)):
        check(align(*first, kind="rigid", channels=[channel]), matrix)


def test_a_channel_that_repeats_the_images_or_says_nothing_changes_little(fixed):
    moving = head(grid_of(), SMALL, seed=1)
    alone = align(fixed, moving)
    twice = align(fixed, moving, channels=[(fixed, moving, 2.0)])
    assert twice.similarity_after == pytest.approx(alone.similarity_after, abs=1e-6)
    assert error_mm(twice.matrix, alone.matrix)[0] < 0.02
    flat = Volume(np.ones(fixed.grid.shape, dtype=np.float32), fixed.grid)
    found = align(fixed, moving, channels=[(flat, flat, 99.0)])
    check(found, SMALL)
    assert found.similarity_after < 1.02  # which would be next to nothing for a pair by itself


@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_what_is_left_out_has_no_say_in_channels_of_other_grids(fixed, role):
    moving = head(grid_of(), SMALL, seed=1)
    images = {"fixed": head(FINER, seed=2), "moving": head(FINER, SMALL, seed=3)}
    lesion = ball(fixed if role == "fixed" else moving, (20, 10, 5), 26)
    spoiled = ball(images[role], (20, 10, 5), 14)
    matrices = []
    for seed in (0, 1):
        garbage = np.random.default_rng(seed).uniform(300, 900, FINER.shape)
        data = np.where(spoiled, garbage, images[role].data).astype(np.float32)
        changed = images | {role: Volume(data, FINER)}
        channel = (changed["fixed"], changed["moving"], 1.0)
        result = align(fixed, moving, **{f"exclude_{role}": lesion}, channels=[channel])
        check(result, SMALL)
        matrices.append(result.matrix)
    np.testing.assert_array_equal(*matrices)


def test_what_a_channel_shows_beyond_a_masked_image_has_no_say(fixed):
    """A brain mask ends with its image; the channel reaches 40 mm further, where it shows anything."""
    moving, brain = head(grid_of(), SMALL, seed=1), ndimage.binary_dilation(fixed.data > 0)
    wide = grid_of(shape=(68, 72, 64))
    beyond = np.ones(wide.shape, dtype=bool)
    beyond[10:-10, 10:-10, 10:-10] = False
    matrices = []
    for seed in (0, 1):
        garbage = np.random.default_rng(seed).uniform(300, 900, wide.shape)
        data = np.where(beyond, garbage, head(wide).data).astype(np.float32)
        result = align(fixed, moving, exclude_fixed=~brain, channels=[(Volume(data, wide), moving, 1.0)])
        check(result, SMALL)
        matrices.append(result.matrix)
    np.testing.assert_array_equal(*matrices)


# --- doubt -----------------------------------------------------------------------------------------------------------


def noise(seed, sigma_voxels):
    values = np.random.default_rng(seed).normal(size=(48, 52, 44))
    if sigma_voxels:
        values = ndimage.gaussian_filter(values, sigma_voxels)
    return Volume(np.float32(1000 * (values - values.min()) / np.ptp(values)), grid_of(), "noise")


@pytest.mark.parametrize("sigma_voxels", [0, pytest.param(1, marks=pytest.mark.slow), 3])
def test_unrelated_images_are_called_so(sigma_voxels):
    result = align(noise(0, sigma_voxels), noise(1, sigma_voxels))
    assert result.failed
    assert "tell next to nothing" in result.reason


@pytest.mark.parametrize("sigma_voxels", [0, 2])
def test_a_head_and_noise_are_called_unrelated(fixed, sigma_voxels):
    result = align(fixed, noise(3, sigma_voxels))
    assert result.failed
    assert result.reason


def test_an_impossible_size_is_called_so(fixed):
    result = align(fixed, head(grid_of(), motion(stretch=(2.6, 2.6, 2.6)), seed=1))
    assert result.failed
    assert "stretches" in result.reason


@pytest.mark.parametrize(("shift_mm", "reason"), [(105, "the images"), (160, "falls inside the moving image")])
def test_images_that_hardly_meet_are_called_so(fixed, shift_mm, reason):
    result = align(fixed, fixed, kind="rigid", start=motion((0, 0, 0), (0, 0, shift_mm)))
    assert result.failed
    assert reason in result.reason


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 20, 20)])
def test_the_smallest_images_give_an_answer(shape):
    rng = np.random.default_rng(0)
    images = [Volume(rng.random(shape).astype(np.float32), grid_of(shape=shape)) for _ in range(2)]
    result = align(*images)
    assert np.isfinite(result.matrix).all()
    assert np.linalg.det(result.matrix[:3, :3]) > 0


# --- again and again -------------------------------------------------------------------------------------------------


def test_the_same_input_gives_the_same_matrix_on_any_number_of_threads(fixed):
    moving = head(grid_of(), STRETCHED, seed=1)
    expected = align(fixed, moving)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if before != 3 else 2)
        again = align(fixed, moving)
        np.testing.assert_array_equal(again.matrix, expected.matrix)
        assert again.similarity_after == expected.similarity_after
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_there_and_back_is_the_identity(fixed):
    moving = head(grid_of(), STRETCHED, seed=1)
    there, back = align(fixed, moving).matrix, align(moving, fixed).matrix
    assert error_mm(back @ there, np.eye(4))[0] < 0.5


# --- real brains -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.data
def test_a_real_pair_is_aligned_the_same_from_a_false_place(data_folder):
    """Turning and shifting the moving header by 40 degrees and 60 mm changes the matrix by just that."""
    fixed, moving = (read_volume(data_folder / f"brains/benchmark/{n}_T1_brain.nii.gz") for n in (1009, 1003))
    plain = align(fixed, moving)
    assert not plain.failed
    false_place = motion((25, -20, 30), (60, -60, 60))
    misplaced = Volume(moving.data, Grid(moving.grid.shape, false_place @ moving.grid.affine), "misplaced")
    result = align(fixed, misplaced)
    assert not result.failed
    corrected = np.linalg.inv(false_place) @ result.matrix
    inside = fixed.grid.to_mm(np.argwhere(fixed.data > 0)[::1000])
    apart = inside @ (corrected - plain.matrix)[:3, :3].T + (corrected - plain.matrix)[:3, 3]
    assert np.linalg.norm(apart, axis=1).max() < 0.5
