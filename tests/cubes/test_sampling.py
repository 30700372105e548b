"""Training cubes are drawn as the method says, from every place that qualifies, and the draw always ends."""

import itertools

import numpy as np
import pytest

from medwave.core.errors import GeometryError, InputError
from medwave.cubes import Box, sample_cubes
from medwave.cubes.sampling import _counts, _lattice, fibre_cubes


def tube(shape, every=5):
    fibre = np.zeros(shape, bool)
    fibre[shape[0] // 2, shape[1] // 3, ::every] = True
    return fibre


def share(fibre, box):
    inside = fibre[tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))]
    return inside.mean()


def test_voxels_of_every_cube_are_those_counted_by_hand():
    mask = np.random.default_rng(0).random((7, 40, 35)) < 0.1
    size = (9, 16, 33)
    axes = [_lattice(n, s) for n, s in zip(mask.shape, size, strict=True)]
    assert [a.tolist() for a in axes] == [[0], list(range(25)), [0, 1, 2]]
    counted = _counts(mask, axes, size)
    for z, y, x in itertools.product(*(range(len(a)) for a in axes)):
        start = [a[i] for a, i in zip(axes, (z, y, x), strict=True)]
        assert counted[z, y, x] == mask[tuple(slice(a, a + s) for a, s in zip(start, size, strict=True))].sum()


def test_groups_have_the_published_numbers_and_shares():
    fibre = tube((20, 300, 400))
    cubes = sample_cubes(fibre, size=(10, 50, 50), seed=0)
    tiles = 2 * 6 * 8
    groups = {g: [c.box for c in cubes if c.group == g] for g in ("any", "fibre")}
    assert len(groups["any"]) == tiles
    assert len(groups["fibre"]) == 6 * tiles
    assert min(share(fibre, box) for box in groups["fibre"]) >= fibre.mean()
    assert sum(share(fibre, box) == 0 for box in groups["any"]) > tiles / 4
    for boxes in groups.values():
        assert len(set(boxes)) == len(boxes)
        assert all(min(box.start) >= 0 and box.stop <= (20, 300, 400) for box in boxes)
    assert [fibre_cubes(n) for n in (1, 9, 10, 49, 50, 199, 200)] == [10, 90, 80, 392, 300, 1194, 800]


def test_cubes_with_fibre_lie_on_all_of_it():
    fibre = tube((16, 64, 200), every=1)
    boxes = [c.box for c in sample_cubes(fibre, size=(16, 32, 32), seed=3) if c.group == "fibre"]
    covered = np.zeros(200, bool)
    for box in boxes:
        covered[box.start[2] : box.stop[2]] = True
    assert covered[8:-8].all()  # the border itself is reached by one start of 169


def test_stacks_thinner_than_a_cube_do_not_draw_for_ever():
    fibre = np.zeros((3, 90, 90), bool)
    fibre[1, 40, 40] = True  # one voxel: of a padded cube of 32 planes no share would reach that of the volume
    cubes = sample_cubes(fibre, size=(32, 64, 64), seed=0)
    full = [c.box for c in cubes if c.group == "fibre"]
    assert len(full) == 40
    assert {(box.start[0], box.stop[0]) for box in full} == {(0, 32)}
    assert all(share(fibre, box) > 0 for box in full)


def test_a_volume_without_fibre_gives_empty_cubes_only():
    assert {c.group for c in sample_cubes(np.zeros((8, 8, 8), bool), size=(4, 4, 4), seed=0)} == {"any"}


def test_cubes_know_enough_and_fibre_that_is_unknown_does_not_count():
    fibre = np.zeros((8, 64, 64), bool)
    fibre[4, 32] = True
    known = np.zeros_like(fibre)
    known[:, :, :32] = True
    cubes = sample_cubes(fibre & known, known, size=(8, 16, 16), seed=0)
    assert cubes
    assert all(share(known, c.box) >= 0.5 for c in cubes)
    with pytest.raises(InputError, match="enlarge the clean boxes"):
        sample_cubes(fibre, np.zeros_like(known), size=(8, 16, 16), seed=0)


def test_a_seed_gives_the_same_cubes():
    fibre = tube((16, 64, 200))
    first, again, other = (sample_cubes(fibre, size=(8, 32, 32), seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert isinstance(first[0].box, Box)


def test_shapes_must_fit():
    with pytest.raises(GeometryError, match="of one shape"):
        sample_cubes(np.zeros((4, 4, 4), bool), np.zeros((4, 4, 5), bool), seed=0)
    with pytest.raises(GeometryError, match="of one shape"):
        sample_cubes(np.zeros((4, 4, 4), bool), size=(0, 2, 2), seed=0)
