"""The middle of linear maps: what it means, and that it favours none of them."""

import numpy as np
import pytest
from scipy.linalg import polar
from scipy.spatial.transform import Rotation

from medwave.core.errors import GeometryError
from medwave.fields.middle import to_common_world

POINT = np.array([12.0, -7.0, 30.0])


def maps(count, *, seed=0, degrees=40.0):
    """Rotations, stretches, shears and shifts."""
    draw = np.random.default_rng(seed)
    found = np.tile(np.eye(4), (count, 1, 1))
    turns = Rotation.from_rotvec(np.radians(draw.uniform(-degrees, degrees, (count, 3)))).as_matrix()
    found[:, :3, :3] = turns @ (np.eye(3) + draw.uniform(-0.15, 0.15, (count, 3, 3)))
    found[:, :3, 3] = draw.uniform(-40, 40, (count, 3))
    return found


def test_from_the_middle_the_maps_neither_turn_nor_stretch_nor_shift_on_average():
    away = maps(7)
    back = to_common_world(away, POINT)
    from_middle = away @ back
    turns, stretches = zip(*(polar(m[:3, :3]) for m in from_middle), strict=True)
    mean_turn = polar(np.mean(turns, axis=0))[0]
    np.testing.assert_allclose(mean_turn, np.eye(3), atol=1e-10)
    spectra = [np.linalg.eigh(stretch) for stretch in stretches]
    logs = [axes * np.log(values) @ axes.T for values, axes in spectra]
    np.testing.assert_allclose(np.mean(logs, axis=0), 0, atol=1e-10)
    place = np.linalg.solve(back, [*POINT, 1])
    np.testing.assert_allclose((from_middle @ place).mean(axis=0), place, atol=1e-10)


def test_the_middle_of_one_map_is_where_it_leads():
    (away,) = maps(1)
    np.testing.assert_allclose(away @ to_common_world([away], POINT), np.eye(4), atol=1e-9)


def test_order_and_common_world_do_not_matter():
    away = maps(5, seed=3)
    first = away @ to_common_world(away, POINT)
    turned = away[::-1]
    np.testing.assert_allclose(turned @ to_common_world(turned, POINT), first[::-1], atol=1e-9)
    other = maps(1, seed=9)[0]  # from another common world to the first one
    moved = (np.linalg.inv(other) @ [*POINT, 1])[:3]
    again = away @ other
    np.testing.assert_allclose(again @ to_common_world(again, moved), first, atol=1e-8)


@pytest.mark.parametrize("bad", [[], [np.diag([1.0, 1, -1, 1])], [np.full((4, 4), np.nan)]])
def test_what_has_no_middle(bad):
    with pytest.raises(GeometryError, match="neither reflect nor flatten"):
        to_common_world(bad, POINT)
