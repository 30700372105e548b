"""Channels and landmarks end to end: files in, the error less where they help, and what the report says."""

import json

import numpy as np
import phantom
import pytest

import medwave
from medwave.core.errors import InputError, OutputError
from medwave.core.geometry import Volume
from medwave.volumes import PointTable, read_volume, write_points
from medwave.workflows.run_folder import run_files, spare_inputs


@pytest.fixture(scope="module")
def pair():
    return phantom.make_pair()


@pytest.fixture(scope="module")
def landmarks():
    points = phantom.inside_points()[::1500]
    return points, phantom.to_moving(points)


START = {"init": phantom.MATRIX, "affine": "none", "preset": "fast", "threads": 1}


def half_blind(volume):
    """The image without what tells places apart in one half of the world."""
    x = phantom.world(volume.grid)[..., 0]
    flat = np.where(np.asarray(volume.data) > 0, 600, 0)
    return Volume(np.where(x > 0, flat, volume.data).astype(np.float32), volume.grid, volume.name)


def slab(volume, first, last):
    """The slices of an image from one share of its last axis to another."""
    start, stop = (int(share * volume.grid.shape[2]) for share in (first, last))
    grid = volume.grid.crop((0, 0, start), (*volume.grid.shape[:2], stop - start))
    return Volume(np.ascontiguousarray(volume.data[:, :, start:stop]), grid, volume.name)


def test_a_second_channel_helps_where_the_first_is_blind(pair):
    blind = half_blind(pair.fixed), half_blind(pair.moving)
    alone = medwave.register(*blind, **START)
    helped = medwave.register(*blind, fixed_channels=[pair.fixed], moving_channels=[pair.moving], **START)
    errors = [phantom.true_error_mm(r.transform.apply_points_mm) for r in (alone, helped)]
    assert errors[1] < 0.85 * errors[0]
    weighted = medwave.register(
        *blind, fixed_channels=[pair.fixed], moving_channels=[pair.moving], channel_weights=[4.0], **START
    )
    assert phantom.true_error_mm(weighted.transform.apply_points_mm) < 1.02 * errors[1]


@pytest.mark.parametrize("shares", [(0.35, 0.65, 0.25, 0.75), (0.25, 0.75, 0.35, 0.6)])
def test_a_channel_of_a_slab_does_not_pull_at_its_ends(pair, shares):
    """Where the slabs of the two subjects end, zeros follow, which belong to nothing."""
    alone = medwave.register(pair.fixed, pair.moving, **START)
    slabs = [slab(pair.fixed, *shares[:2]), slab(pair.moving, *shares[2:])]
    joined = medwave.register(pair.fixed, pair.moving, fixed_channels=slabs[:1], moving_channels=slabs[1:], **START)
    errors = [phantom.true_error_mm(r.transform.apply_points_mm) for r in (alone, joined)]
    assert errors[1] < 1.1 * errors[0]


def test_a_channel_that_lies_elsewhere_is_refused(pair):
    away = Volume(pair.moving.data, pair.moving.grid.crop((200, 0, 0), pair.moving.grid.shape), "away")
    with pytest.raises(InputError, match="fixed and away: as channels they show nothing of the subject"):
        medwave.register(pair.fixed, pair.moving, fixed_channels=[pair.fixed], moving_channels=[away], **START)


def test_further_channels_are_warped_too(pair, tmp_path):
    finer = phantom.make_pair(moving_grid=phantom.turned(spacing_mm=(2.0, 3.0, 2.5), angle=0.3)).moving
    quick = START | {"fixed_channels": [pair.fixed] * 2, "moving_channels": [pair.moving, finer]}
    result = medwave.register(pair.fixed, pair.moving, **quick)
    result.save(tmp_path)
    first, second = (read_volume(tmp_path / f"warped_channel_{n}.nii.gz") for n in (1, 2))
    np.testing.assert_array_equal(first.data, read_volume(tmp_path / "warped.nii.gz").data)
    np.testing.assert_allclose(second.data, medwave.apply_transform(result, finer).images[0].data, atol=1e-3)
    page = (tmp_path / "report.html").read_text()
    assert 'href="warped_channel_2.nii.gz"' in page
    with pytest.raises(OutputError, match="would replace this input"):
        spare_inputs(run_files(tmp_path), [tmp_path / "warped_channel_2.nii.gz"])
    medwave.register(pair.fixed, pair.moving, **START).save(tmp_path)
    assert not list(tmp_path.glob("warped_channel_*"))


def test_landmarks_pull_and_are_reported(pair, landmarks, tmp_path):
    fixed, moving = landmarks
    for name, points in (("f", fixed), ("m", moving)):
        write_points(tmp_path / f"{name}.csv", PointTable(points), space="LPS")
    files = {"landmarks_fixed": tmp_path / "f.csv", "landmarks_moving": tmp_path / "m.csv", "space": "LPS"}
    held_out = medwave.register(pair.fixed, pair.moving, **files, landmark_weight=0, **START)
    pulled = medwave.register(pair.fixed, pair.moving, **files, **START)
    assert pulled.landmarks.after_mm.mean() < 0.7 * held_out.landmarks.after_mm.mean()
    np.testing.assert_allclose(held_out.landmarks.before_mm, np.linalg.norm(fixed - moving, axis=1), atol=1e-4)
    assert held_out.landmarks.affine_mm.mean() > held_out.landmarks.after_mm.mean()
    assert (pulled.jacobian > 0).all()
    assert not pulled.warnings
    pulled.save(tmp_path / "run")
    said = json.loads((tmp_path / "run/run.json").read_text())["figures"]["Target registration error"]
    assert said["after"] == pytest.approx(pulled.landmarks.after_mm.mean())
    assert said["before"] == pytest.approx(pulled.landmarks.before_mm.mean())
    page = (tmp_path / "run/report.html").read_text()
    assert "Target registration error" in page
    assert f"{len(fixed)} landmarks, which pulled" in page


def test_landmarks_outside_of_their_image_are_doubted(pair, landmarks):
    fixed, moving = landmarks[0][:3].copy(), landmarks[1][:3]
    fixed[1] += 1000
    options = {"affine": "none", "deformable": False, "threads": 1, "space": "LPS"}
    result = medwave.register(
        pair.fixed, pair.moving, landmarks_fixed=PointTable(fixed), landmarks_moving=PointTable(moving), **options
    )
    (warning,) = result.warnings
    assert warning == "1 of 3 landmarks lie outside of the fixed image; are x y z in mm along LPS (--space)?"


@pytest.mark.parametrize(("kind", "said"), [("rigid", "a rigid motion"), ("affine", "an affine")])
def test_a_linear_result_has_a_report_without_a_deformation(pair, tmp_path, kind, said):
    result = medwave.register(pair.fixed, pair.moving, affine=kind, deformable=False, threads=1)
    singular = np.linalg.svd(result.matrix[:3, :3], compute_uv=False)
    assert (np.abs(singular - 1).max() < 1e-6) == (kind == "rigid")
    page = result.save(tmp_path / "run").read_text()
    assert f"The registration by {said} " in " ".join(page.split())
    assert "after the affine part" not in page


def test_what_does_not_go_in_pairs_is_said(pair, tmp_path):
    with pytest.raises(InputError, match="--fixed-channel and --moving-channel"):
        medwave.register(pair.fixed, pair.moving, fixed_channels=[pair.fixed])
    with pytest.raises(InputError, match="channel weights"):
        medwave.register(
            pair.fixed, pair.moving, fixed_channels=[pair.fixed], moving_channels=[pair.moving], channel_weights=[1, 2]
        )
    with pytest.raises(InputError, match="--landmarks-fixed and --landmarks-moving"):
        medwave.register(pair.fixed, pair.moving, landmarks_fixed=PointTable(np.zeros((2, 3))))
    with pytest.raises(InputError, match="2 fixed and 3 moving"):
        medwave.register(
            pair.fixed, pair.moving, landmarks_fixed=PointTable(np.zeros((2, 3))),
            landmarks_moving=PointTable(np.zeros((3, 3))),
        )  # fmt: skip
    with pytest.raises(InputError, match="landmark-weight"):
        medwave.register(pair.fixed, pair.moving, landmark_weight=-1)
