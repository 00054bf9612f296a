"""n-step returns against values worked out by hand, and against a loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisynet.replay import n_step_return


def flags(*rows: str) -> np.ndarray:
    """Booleans from rows such as "..x"."""
    return np.array([[mark == "x" for mark in row] for row in rows])


def test_values_by_hand():
    reward = np.array([[1.0, 2.0, 4.0]] * 6, np.float32)
    terminated = flags("...", "x..", ".x.", "..x", "...", ".x.")
    truncated = flags("...", "...", "...", "...", ".x.", "x..")
    total, discount, steps = n_step_return(reward, terminated, truncated, 0.5)
    # 1 + 2/2 + 4/4 = 3; a window that ends early leaves later rewards out.
    np.testing.assert_array_equal(total, np.float32([3, 1, 2, 3, 2, 1]))
    np.testing.assert_array_equal(discount, np.float32([0.125, 0, 0, 0, 0.25, 0.5]))
    np.testing.assert_array_equal(steps, [3, 1, 2, 3, 2, 1])
    assert total.dtype == discount.dtype == np.float32


def test_one_step_is_the_reward():
    total, discount, steps = n_step_return(
        np.float32([[7.0], [-2.0]]), flags(".", "x"), flags(".", "."), 0.9
    )
    np.testing.assert_array_equal(total, np.float32([7, -2]))
    np.testing.assert_array_equal(discount, np.float32([0.9, 0]))
    np.testing.assert_array_equal(steps, [1, 1])


def test_a_step_that_is_terminated_and_truncated_is_terminated():
    _, discount, _ = n_step_return(np.ones((1, 3)), flags(".x."), flags(".x."), 0.9)
    assert discount[0] == 0


@pytest.mark.parametrize(("discount", "total", "power"), [(0.0, 1.0, 0.0), (1.0, 3.0, 1.0)])
def test_discounts_at_the_edges(discount: float, total: float, power: float):
    got = n_step_return(np.ones((1, 3)), flags("..."), flags("..."), discount)
    assert (got[0][0], got[1][0]) == (total, power)


@pytest.mark.parametrize("stranger", [np.nan, np.inf, -1e30])
def test_what_stands_after_the_end_does_not_matter(stranger: float):
    got = n_step_return(np.array([[1.0, 2.0, stranger]]), flags(".x."), flags("..x"), 0.5)
    assert [array[0] for array in got] == [2.0, 0.0, 2]


@given(st.data(), st.integers(1, 6), st.floats(0, 1))
def test_equals_a_loop(data: st.DataObject, n_step: int, discount: float):
    step = st.tuples(st.floats(-9, 9, width=32), st.booleans(), st.booleans())
    rows = data.draw(st.lists(st.lists(step, min_size=n_step, max_size=n_step), min_size=1))
    columns = [np.array([[s[i] for s in row] for row in rows]) for i in range(3)]
    got_total, got_discount, got_steps = n_step_return(*columns, discount)
    for index, row in enumerate(rows):
        total, power = 0.0, 1.0
        taken = 0
        for reward, terminated, truncated in row:
            taken += 1
            total += power * reward
            power *= discount
            if terminated or truncated:
                break
        assert got_steps[index] == taken
        np.testing.assert_allclose(got_total[index], total, rtol=1e-6, atol=1e-6)
        expected = 0.0 if terminated else power
        np.testing.assert_allclose(got_discount[index], expected, rtol=1e-6, atol=1e-30)
