"""A compiled forward sees the noise in force, not the noise it was compiled with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import noisynet


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("rows", [None, 5])
def test_a_compiled_forward_uses_each_new_draw(net: nn.Sequential, rows: int | None) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    x = torch.randn(5, 3)
    noisynet.hold(net, rows=rows)
    outputs = [compiled(x)]
    torch.testing.assert_close(outputs[0], net(x))
    for _ in range(2):
        noisynet.resample(net)
        outputs.append(compiled(x))
        torch.testing.assert_close(outputs[-1], net(x))
    with noisynet.mean_weights(net):
        outputs.append(compiled(x))
        torch.testing.assert_close(outputs[-1], net(x))
    noisynet.release(net)
    outputs += [compiled(x), compiled(x)]
    assert len({tuple(y.flatten().tolist()) for y in outputs}) == len(outputs)
