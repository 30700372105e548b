"""The metric that the contrasts of a pair ask for."""

import numpy as np
import pytest

from medwave.engine.affine import align
from medwave.engine.loops import CpuLoops
from medwave.engine.refine_terms import Channel
from medwave.volumes import read_volume
from medwave.workflows.metric_choice import alike, chosen_metric
from medwave.workflows.options import RegisterOptions
from medwave.workflows.pair import prepare_pair


def test_contrast_is_alike_when_a_line_says_as_much_as_a_curve():
    rng = np.random.default_rng(0)
    one = rng.uniform(0, 1, (15, 15, 15)).astype(np.float32).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    noise = rng.normal(scale=0.5, size=one.shape).astype(np.float32)  # of voxels: a third of it is left in blocks
    everywhere = np.ones(one.shape, bool)

    def said(other):
        return alike([Channel(one, np.float32(other))], everywhere)

    assert said(one + noise)
    assert said(0.2 + 0.6 * one + noise)
    assert said(one**1.5 + 0.5 * noise)
    assert not said(1 - one + noise)  # T2
    assert not said(np.where(one < 0.75, one, 1.3 - one) + 0.5 * noise)  # rises and falls: FLAIR
    assert not said(noise)
    assert not said(everywhere)  # a mask
    assert not alike([Channel(one, one + noise), Channel(one, 1 - one)], everywhere)


@pytest.mark.data
def test_contrast_of_real_brains_is_told(data_folder):
    folder = data_folder / "brains" / "multicontrast"
    images = {name: read_volume(folder / f"patient19_{name}.nii.gz") for name in ("T1", "T2", "FLAIR")}
    for name, expected in (("T1", True), ("T2", False), ("FLAIR", False)):
        pair = prepare_pair(
            images["T1"], images[name], np.eye(4), use_fixed=None, use_moving=None, most_voxels=12_000_000
        )
        assert alike([Channel(pair.fixed, pair.moving)], pair.subject) == expected


@pytest.mark.data
def test_two_t1_brains_are_alike_though_their_voxels_are_noisy(data_folder):
    """A pair whose single voxels lie as far from a straight line as those of T1 and FLAIR."""
    fixed, moving = (read_volume(data_folder / "brains" / "benchmark" / f"{n}_T1_brain.nii.gz") for n in (1119, 1001))
    matrix = align(fixed, moving).matrix
    pair = prepare_pair(fixed, moving, matrix, use_fixed=None, use_moving=None, most_voxels=12_000_000)
    assert alike([Channel(pair.fixed, pair.moving)], pair.subject)


@pytest.mark.data
def test_t2_of_two_people_is_one_contrast_once_their_ventricles_meet(data_folder):
    """Four times the ventricles: the affine leaves fluid over tissue, which looks like another contrast."""
    folder = data_folder / "brains" / "multicontrast"
    fixed, t1, t2 = (read_volume(folder / f"patient{name}.nii.gz") for name in ("07_T2", "19_T1", "19_T2"))
    for moving, expected in ((t2, "lncc"), (t1, "curve")):
        matrix = align(fixed, moving).matrix
        pair = prepare_pair(fixed, moving, matrix, use_fixed=None, use_moving=None, most_voxels=12_000_000)
        assert not alike([Channel(pair.fixed, pair.moving)], pair.subject & (pair.weight > 0))
        assert chosen_metric(pair, RegisterOptions(), [], None, CpuLoops()) == expected
        given = RegisterOptions(metric="mi")
        assert chosen_metric(pair, given, [], None, CpuLoops()) == "mi"


@pytest.mark.data
def test_t1_of_two_people_is_one_contrast_whatever_their_ventricles(data_folder):
    fixed = read_volume(data_folder / "brains" / "benchmark" / "1001_T1_brain.nii.gz")
    moving = read_volume(data_folder / "brains" / "multicontrast" / "patient19_T1.nii.gz")
    matrix = align(fixed, moving).matrix
    pair = prepare_pair(fixed, moving, matrix, use_fixed=None, use_moving=None, most_voxels=12_000_000)
    assert chosen_metric(pair, RegisterOptions(), [], None, CpuLoops()) == "lncc"
