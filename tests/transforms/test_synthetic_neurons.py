"""Synthetic neurons: seeded, inside their volume, with truth that fits the image."""

import numpy as np
import pytest

from medwave.core.tree import SOMA
from medwave.transforms import Growth, Microscope, grow_tree, random_growth, random_microscope, render_neuron

SHAPE = (24, 72, 72)


def rendered(seed=0, **changes):
    tree = grow_tree(SHAPE, Growth(length=80), seed=seed)
    return render_neuron(tree, SHAPE, Microscope(**changes), seed=seed)


def test_a_seed_gives_the_same_neuron_and_another_seed_another():
    first, again, other = rendered(3), rendered(3), rendered(4)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.tree.positions, again.tree.positions)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("seed", range(6))
def test_a_tree_stays_inside_and_hangs_on_one_soma(seed):
    tree = grow_tree(SHAPE, random_growth(seed), seed=seed)
    assert (tree.positions >= 0).all()
    assert (tree.positions <= np.array(SHAPE[::-1]) - 1).all()
    assert (tree.parent < 0).sum() == 1
    assert tree.kind[0] == SOMA
    assert (tree.radius > 0).all()


def test_tubes_are_brighter_than_the_background():
    neuron = rendered()
    inside, outside = neuron.image[neuron.mask], neuron.image[~neuron.mask]
    assert inside.mean() > 5 * outside.mean()
    assert (neuron.centre_lines <= neuron.mask).mean() > 0.999


def test_the_hard_case_is_as_hard_as_it_says():
    """Photons 14 over 8 with read noise 3: contrast over noise between one and three."""
    neuron = rendered(signal_photons=14, background_photons=8, read_noise=3)
    contrast = neuron.image[neuron.mask].mean() - neuron.image[~neuron.mask].mean()
    assert 0.8 < contrast / neuron.image[~neuron.mask].std() < 3


def test_gaps_darken_part_of_the_tree_but_stay_in_the_truth():
    whole, gappy = rendered(beading=0), rendered(beading=0, gap_share=0.2)
    np.testing.assert_array_equal(whole.mask, gappy.mask)
    dark = [float((neuron.image[neuron.centre_lines] < 60).mean()) for neuron in (whole, gappy)]
    assert dark[1] > dark[0] + 0.1


@pytest.mark.parametrize("change", [{"blobs": 400.0}, {"stripes": 0.3}, {"unevenness": 1.0}])
def test_each_trouble_changes_the_background_only_where_asked(change):
    clean, troubled = rendered(), rendered(**change)
    assert troubled.image[~troubled.mask].std() > clean.image[~clean.mask].std()
    np.testing.assert_array_equal(clean.mask, troubled.mask)


def test_a_black_level_empties_the_background_and_keeps_the_truth():
    plain, cut = rendered(background_photons=4), rendered(background_photons=4, black_level=10)
    assert np.mean(plain.image == 0) < 0.05
    assert np.mean(cut.image == 0) > 0.9
    assert cut.image[cut.centre_lines].mean() > 60
    np.testing.assert_array_equal(plain.mask, cut.mask)


def test_random_microscopes_differ_and_are_seeded():
    assert random_microscope(1) == random_microscope(1)
    assert random_microscope(1) != random_microscope(2)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_microscopes_takes_the_background_off(share):
    off = np.mean([random_microscope(seed, black_levels=share).black_level != 0 for seed in range(300)])
    assert abs(off - share) < 0.1
