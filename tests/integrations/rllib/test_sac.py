"""SAC of RLlib with noise in its actor: the RLModule alone, and in the host's own training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "ray.rllib", reason="needs noisynet[rllib], which has an environment of its own"
)

import gymnasium
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.sac.sac_learner import ACTION_DIST_INPUTS_NEXT
from ray.rllib.core.columns import Columns

import noisynet
from noisynet.integrations.rllib import add_noise

# The host warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore")

ENVIRONMENTS = 4
SMALL = {"fcnet_hiddens": [16], "head_fcnet_hiddens": [16]}
ACTOR = {"pi_encoder.net.mlp.0", "pi.net.mlp.0", "pi.net.mlp.2"}
OBSERVATIONS = gymnasium.spaces.Box(-1.0, 1.0, (3,))
BOX = gymnasium.spaces.Box(-2.0, 2.0, (1,))
DISCRETE = gymnasium.spaces.Discrete(3)


def module_of(
    *,
    inference_only: bool = False,
    actions: gymnasium.Space[Any] = BOX,
    model: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    config = add_noise(SACConfig().rl_module(model_config=SMALL | (model or {})), **options)
    spaces = {"default_policy": (OBSERVATIONS, actions)}
    module = config.get_rl_module_spec(spaces=spaces, inference_only=inference_only).build()
    if not inference_only:
        module.make_target_networks()
    return module


@pytest.mark.parametrize(
    ("noise_in", "expected"),
    [
        ("all", ACTOR),
        ("head", {"pi.net.mlp.0", "pi.net.mlp.2"}),
        ("last", {"pi.net.mlp.2"}),
    ],
)
def test_the_noise_is_in_the_actor_alone(noise_in: str, expected: set[str]) -> None:
    assert set(noisynet.noisy_layers(module_of(noise_in=noise_in))) == expected


@pytest.mark.parametrize("actions", [BOX, DISCRETE])
def test_inference_is_the_mean_weights_and_exploration_a_draw_for_each_row(
    actions: gymnasium.Space[Any],
) -> None:
    actor = module_of(inference_only=True, actions=actions)
    batch = {Columns.OBS: torch.ones(5, 3)}
    name = Columns.ACTION_DIST_INPUTS
    with noisynet.mean_weights(actor):
        mean = actor.pi(actor.pi_encoder(batch)["encoder_out"])
    assert torch.equal(actor.forward_inference(batch)[name], mean)
    assert len(actor.forward_exploration(batch)[name].unique(dim=0)) == 5


def test_the_actor_draws_apart_for_its_loss_and_for_the_next_actions() -> None:
    module = module_of()
    batch = {
        Columns.OBS: torch.ones(4, 3),
        Columns.NEXT_OBS: torch.ones(4, 3),
        Columns.ACTIONS: torch.zeros(4, 1),
    }
    names = (Columns.ACTION_DIST_INPUTS, ACTION_DIST_INPUTS_NEXT)
    output = module.forward_train(batch)
    own, following = (output[name] for name in names)
    assert not torch.allclose(own, following)
    # One draw for the whole minibatch.
    assert len(own.unique(dim=0)) == 1
    own.sum().backward()
    for sigma in noisynet.sigma_parameters(module):
        assert sigma.grad is not None
        assert sigma.grad.abs().max() > 0
    with noisynet.mean_weights(module):
        output = module.forward_train(batch)
    assert torch.equal(*(output[name] for name in names))


def test_acting_holds_its_noise_from_the_first_learned_weights_on() -> None:
    actor, learner = module_of(inference_only=True), module_of()
    batch = {Columns.OBS: torch.ones(ENVIRONMENTS, 3)}

    def act() -> torch.Tensor:
        return actor.forward_exploration(batch)[Columns.ACTION_DIST_INPUTS]

    actor.set_state(learner.get_state(inference_only=True))
    assert not torch.equal(act(), act())
    with torch.no_grad():
        for sigma in noisynet.sigma_parameters(learner):
            sigma.mul_(1.01)
    actor.set_state(learner.get_state(inference_only=True))
    assert torch.equal(act(), act())


def test_a_recurrent_actor() -> None:
    with pytest.raises(ValueError, match=r"^NoisySACRLModule: got a recurrent module"):
        module_of(model={"use_lstm": True})


@pytest.mark.usefixtures("cluster")
def test_noise_acts_in_the_host_s_own_training_sigma_learns_and_a_checkpoint_goes_on(
    tmp_path: Path, built: Any, config_of: Any, learner_module: Any
) -> None:
    algorithm = built(config_of(SACConfig, "Pendulum-v1"))
    learner = learner_module(algorithm)
    before = [one.detach().clone() for one in noisynet.sigma_parameters(learner)]
    for _ in range(20):
        algorithm.train()
    for was, now in zip(before, noisynet.sigma_parameters(learner), strict=True):
        assert (now - was).abs().mean() > 0.001 * was.abs().mean()
    acting = algorithm.env_runner.module
    algorithm.env_runner.sample(num_timesteps=ENVIRONMENTS)
    held = acting._acting._held
    assert len(held.flats[0].unique(dim=0)) == ENVIRONMENTS
    for key, value in acting.state_dict().items():
        assert torch.equal(value, learner.state_dict()[key])
    algorithm.save_to_path(tmp_path / "checkpoint")
    loaded = Algorithm.from_checkpoint(str(tmp_path / "checkpoint"))
    try:
        ours, theirs = (learner_module(one).state_dict() for one in (algorithm, loaded))
        assert any("_sigma" in key for key in ours)
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
        loaded.train()
    finally:
        loaded.stop()
