"""Batches built by hand: what fits, what does not, and the way to a device."""

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from noisynet.replay import Batch


def make(rows: int = 3) -> Batch[np.ndarray]:
    return Batch(
        observation_tm1=np.ones((rows, 2, 5), np.uint8),
        action_tm1=np.arange(rows),
        return_t=np.ones(rows, np.float32),
        discount_t=np.full(rows, 0.9, np.float32),
        observation_t=np.zeros((rows, 2, 5), np.uint8),
        weights=np.full(rows, 0.5, np.float32),
        indices=np.arange(rows) + 7,
    )


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("action_tm1", np.zeros((3, 1), int), r"action_tm1: got shape \(3, 1\), expected \(B,\)"),
        ("action_tm1", np.zeros(4, int), r"return_t: got shape \(3,\), expected \(4,\)"),
        ("return_t", np.zeros((3, 1)), r"return_t: got shape \(3, 1\), expected \(3,\)"),
        ("discount_t", np.zeros(2), r"discount_t: got shape \(2,\), expected \(3,\)"),
        ("weights", np.zeros((3, 1)), r"weights: got shape \(3, 1\), expected \(3,\)"),
        ("indices", np.zeros(1, int), r"indices: got shape \(1,\), expected \(3,\)"),
        (
            "observation_tm1",
            np.zeros((2, 2, 5)),
            r"observation_tm1: got shape \(2, 2, 5\), .*\(3, …",
        ),
        ("observation_t", np.zeros((3, 5)), r"observation_t: got shape \(3, 5\), .*\(3, 2, 5\)"),
    ],
)
def test_a_shape_that_does_not_fit_is_named(name: str, value: Any, message: str, convert: Any):
    with pytest.raises(ValueError, match=message):
        _ = replace(make(), **{name: convert(value)})


def test_tensors_of_a_device_keep_the_numbers_and_their_types():
    batch = make()
    there = batch.to("cpu")
    assert len(batch) == len(there) == 3
    for name in ("observation_tm1", "action_tm1", "return_t", "discount_t", "observation_t"):
        tensor = getattr(there, name)
        assert isinstance(tensor, torch.Tensor)
        assert tensor.numpy().dtype == getattr(batch, name).dtype
        np.testing.assert_array_equal(tensor.numpy(), getattr(batch, name))
    assert there.weights is not None
    assert there.weights.tolist() == [0.5] * 3
    assert there.indices is batch.indices
    assert there.to(torch.device("cpu")).return_t is there.return_t
    assert replace(batch, weights=None, indices=None).to("cpu").weights is None


def test_a_batch_can_be_sent_to_another_process():
    batch = make()
    copy = pickle.loads(pickle.dumps(batch))
    for name in Batch.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(copy, name), getattr(batch, name))
