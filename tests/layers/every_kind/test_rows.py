"""Draws that are shared, held for rows, or fresh, for every kind of layer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

import noisynet


def test_row_i_uses_draw_i_always(kind: Any, noise: Any) -> None:
    layer = kind.build(noise, dtype=torch.float64)
    kind.hold(layer, kind.rows)
    done = torch.tensor([True, False, False, True])
    for outer in [(), (2,), (0,), (2, 3)] if kind.takes_more_dimensions else [()]:
        inputs, depth = kind.inputs(*outer, dtype=torch.float64), len(outer)
        drawn: Any = noisynet.held(layer)
        together = kind.by_row(layer(*inputs), depth)
        for row in range(kind.rows):
            with noisynet.using(layer, drawn[row]):
                alone = kind.as_one(layer(*kind.pick(inputs, row, depth)))
            torch.testing.assert_close(together[row], alone, rtol=1e-12, atol=1e-12)
        noisynet.resample(layer, where=done)
        changed = kind.by_row(layer(*inputs), depth) != together
        assert torch.equal(changed.any(1), done & (math.prod(outer) > 0))


def test_a_draw_for_each_row_fits_no_other_batch(kind: Any, noise: Any) -> None:
    layer, inputs = kind.build(noise), kind.inputs()
    kind.hold(layer, kind.rows)
    with pytest.raises(ValueError, match="one draw for each of 4 rows"):
        layer(*kind.narrow(inputs, 2))


def test_a_shared_draw_stays_until_it_is_redrawn(kind: Any, noise: Any) -> None:
    layer, inputs = kind.build(noise), kind.alike()
    kind.hold(layer)
    held = kind.as_one(layer(*inputs))
    assert torch.equal(kind.as_one(layer(*inputs)), held)
    noisynet.resample(layer)
    assert not torch.equal(kind.as_one(layer(*inputs)), held)
    noisynet.release(layer)
    fresh = kind.by_row(layer(*inputs))
    assert not torch.equal(kind.by_row(layer(*inputs)), fresh)
    # One draw for the whole batch.
    torch.testing.assert_close(fresh, fresh[:1].expand_as(fresh))


def test_release_per_row_draws_one_for_each_row_anew(kind: Any, noise: Any) -> None:
    layer, alike = kind.build(noise), kind.alike()
    kind.release_per_row(layer)
    output = kind.by_row(layer(*alike))
    assert len({tuple(row.tolist()) for row in output}) == kind.rows
    assert not torch.equal(kind.by_row(layer(*alike)), output)
    # Any batch will do, as nothing is held: one row without a batch, or no row.
    assert kind.as_one(layer(*kind.pick(alike, 0))).shape == output[0].shape
    if not kind.is_attention:
        nothing = kind.narrow(alike, 0)
        shapes = [one.shape for one in tree_leaves(kind.build_plain()(*nothing))]
        assert [one.shape for one in tree_leaves(layer(*nothing))] == shapes
    if kind.takes_more_dimensions:
        output = layer(*kind.alike(2)).flatten(0, 1).flatten(1)
        assert len({tuple(row.tolist()) for row in output}) == 2 * kind.rows
    noisynet.release(layer)
    output = kind.by_row(layer(*alike))
    torch.testing.assert_close(output, output[:1].expand_as(output))
