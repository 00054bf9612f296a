"""A2C's optimizer, block by block, against torch's own."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

import torch
from stable_baselines3 import A2C
from torch import nn
from torch.optim import RMSprop

from noisynet.integrations.sb3 import NoisyA2CPolicy
from noisynet.integrations.sb3.rmsprop import BlockedRMSprop


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_torch_bit_for_bit(decay: float) -> None:
    torch.manual_seed(0)
    # More than a block, less than one, of another layout, and one without a gradient.
    shapes = [(530, 257), (3,), (8, 4, 3, 3), (2, 2)]
    sets = []
    for kind in (RMSprop, BlockedRMSprop):
        torch.manual_seed(1)
        parameters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
        parameters[2].data = parameters[2].data.to(memory_format=torch.channels_last)
        options: dict[str, Any] = {"lr": 0.01, "alpha": 0.9, "eps": 1e-5, "weight_decay": decay}
        optimizer = kind(parameters, **options)
        for step in range(5):
            for parameter in parameters[:3]:
                torch.manual_seed(step)
                parameter.grad = torch.randn_like(parameter)
            if step == 3:
                # A checkpoint of one is one of the other.
                other: Any = (RMSprop if kind is BlockedRMSprop else BlockedRMSprop)(
                    parameters, **options
                )
                other.load_state_dict(optimizer.state_dict())
                optimizer.load_state_dict(other.state_dict())
            optimizer.step()
        sets.append(parameters)
    for torchs, ours in zip(*sets, strict=True):
        assert torch.equal(torchs, ours)


def test_a_closure_is_evaluated() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = BlockedRMSprop([parameter], lr=0.1)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = parameter.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2
    assert (parameter < 1).all()


def test_a2c_has_it_unless_other_options_are_asked_for() -> None:
    model = A2C(NoisyA2CPolicy, "CartPole-v1", device="cpu")
    assert type(model.policy.optimizer) is BlockedRMSprop
    kwargs = {"optimizer_class": RMSprop, "optimizer_kwargs": {"momentum": 0.9}}
    model = A2C(NoisyA2CPolicy, "CartPole-v1", policy_kwargs=kwargs, device="cpu")
    assert type(model.policy.optimizer) is RMSprop


def test_the_options_on_the_page_select_torch_s_own() -> None:
    """The host replaces `optimizer_kwargs` with its own unless there is an `optimizer_class`."""

    def optimizer(**kwargs: Any) -> Any:
        model = A2C(NoisyA2CPolicy, "CartPole-v1", policy_kwargs=kwargs, device="cpu")
        return model.policy.optimizer

    options = {"alpha": 0.99, "eps": 1e-5, "foreach": False}
    chosen = optimizer(optimizer_class=RMSprop, optimizer_kwargs=options)
    assert type(chosen) is RMSprop
    assert chosen.defaults == {**optimizer().defaults, "foreach": False}
    assert type(optimizer(optimizer_kwargs=options)) is BlockedRMSprop
