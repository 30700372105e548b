"""Folds are smoothed away, and nothing else is touched."""

import numpy as np

from medwave.engine.loops import Level
from medwave.engine.refine import refine
from medwave.engine.unfold import unfold
from medwave.fields.kernels import determinants


def wave(height):
    field = np.zeros((3, 24, 20, 22), np.float32)
    i = np.arange(24)
    field[0] = (0.5 * np.sin(i / 4))[:, None, None]
    field[0, 10:14, 8:12, 9:13] += height * np.array([1, 2, -2, -1], np.float32)[:, None, None]
    return field


def test_a_field_without_folds_is_handed_back_itself():
    field = wave(0.0)
    assert unfold(field) is field
    flat = np.ones((3, 1, 4, 4), np.float32)
    assert unfold(flat) is flat


def test_folds_go_and_far_voxels_stay_to_the_bit():
    field = wave(1.0)
    assert determinants(field).min() < 0
    mended = unfold(field)
    assert determinants(mended).min() > 0
    assert np.array_equal(mended[:, :3], field[:, :3])
    assert np.array_equal(mended[..., :2], field[..., :2])
    assert not np.array_equal(mended, field)
    assert determinants(field).min() < 0  # the field handed in is not written to


def test_a_refinement_of_noise_that_is_hardly_smoothed_has_no_fold():
    rng = np.random.default_rng(3)
    fixed, moving = rng.random((2, 24, 24, 24), dtype=np.float32)
    rough = refine(fixed, moving, (Level(1, 40, 0.8, 0.2),)).displacement_voxels
    assert np.abs(rough).max() > 0.5
    assert determinants(rough).min() > 0
