"""The minimiser finds known minima, never climbs, and stops where there is nothing to gain."""

from __future__ import annotations

import numpy as np
import pytest

from medwave.engine.minimise import minimise


def test_a_quadratic_bowl_is_solved_to_the_bottom() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(12, 12))
    matrix, target = root @ root.T + np.eye(12), rng.normal(size=12)

    def bowl(x: np.ndarray) -> tuple[float, np.ndarray]:
        return float((x - target) @ matrix @ (x - target)) / 2, matrix @ (x - target)

    found, value = minimise(bowl, np.zeros(12), iterations=200, tolerance=1e-14)
    assert value < 1e-9
    np.testing.assert_allclose(found, target, atol=1e-4)


def test_rosenbrocks_valley_is_followed_to_its_end() -> None:
    def valley(x: np.ndarray) -> tuple[float, np.ndarray]:
        a, b = x
        slope = np.array([-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)])
        return float((1 - a) ** 2 + 100 * (b - a * a) ** 2), slope

    found, _ = minimise(valley, np.array([-1.2, 1.0]), iterations=200, tolerance=1e-14, first_step=0.1)
    np.testing.assert_allclose(found, [1.0, 1.0], atol=1e-3)


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_no_number_of_steps_ends_above_the_start(iterations: int) -> None:
    def waves(x: np.ndarray) -> tuple[float, np.ndarray]:
        return float(np.sin(3 * x).sum() + 0.1 * x @ x), 3 * np.cos(3 * x) + 0.2 * x

    start = np.array([0.3, -2.0, 1.1])
    found, value = minimise(waves, start, iterations=iterations, tolerance=1e-9, first_step=5.0)
    assert value <= waves(start)[0]
    assert value == pytest.approx(waves(found)[0], abs=1e-12)


def test_a_flat_function_stays_where_it_is() -> None:
    found, value = minimise(lambda x: (7.0, np.zeros_like(x)), np.ones(4), iterations=5, tolerance=1e-7)
    np.testing.assert_array_equal(found, np.ones(4))
    assert value == 7.0
