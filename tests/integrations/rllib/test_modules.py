"""The RLModules for RLlib alone, without a cluster: forwards, options, and what users get wrong."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

pytest.importorskip(
    "ray.rllib", reason="needs noisynet[rllib], which has an environment of its own"
)

import gymnasium
import torch
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.default_dqn_rl_module import (
    QF_LOGITS,
    QF_NEXT_PREDS,
    QF_PREDS,
    QF_TARGET_NEXT_PREDS,
    QF_TARGET_NEXT_PROBS,
)
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

import noisynet
from noisynet.integrations.rllib import NOISE_SEED, NoisyPPORLModule, add_noise
from noisynet.integrations.rllib.learners import NoisyDQNTorchLearner, NoisyPPOTorchLearner

CARTPOLE = gymnasium.make("CartPole-v1")
IMAGES = gymnasium.spaces.Box(0.0, 1.0, (64, 64, 4))
SMALL = {"fcnet_hiddens": [16], "head_fcnet_hiddens": [16]}

# The host's deprecations, of which it warns at its own calls.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def module_of(
    config: Any,
    *,
    inference_only: bool = False,
    model: dict[str, Any] | None = None,
    observations: gymnasium.Space[Any] = CARTPOLE.observation_space,
    **options: Any,
) -> Any:
    # Noise in all layers asks more of the adapter than that of the outputs, PPO's default.
    options = {"noise_in": "all", **options}
    config = add_noise(config.rl_module(model_config=SMALL | (model or {})), **options)
    spaces = {"default_policy": (observations, CARTPOLE.action_space)}
    module = config.get_rl_module_spec(spaces=spaces, inference_only=inference_only).build()
    if isinstance(config, DQNConfig) and not inference_only:
        module.make_target_networks()
    return module


def dqn(**training: Any) -> Any:
    return DQNConfig().training(**{"epsilon": 0.0, **training})


def test_the_loss_has_three_draws_of_its_own() -> None:
    module = module_of(dqn(double_q=True))
    observation = torch.randn(6, 4)
    batch = {Columns.OBS: observation, Columns.NEXT_OBS: observation}
    output = module.forward_train(batch)
    names = (QF_PREDS, QF_NEXT_PREDS, QF_TARGET_NEXT_PREDS)
    online, choice, target = (output[name] for name in names)
    for one, other in ((online, choice), (online, target), (choice, target)):
        assert one.shape == other.shape == (6, 2)
        assert not torch.allclose(one, other)
    assert online.requires_grad
    assert not choice.requires_grad
    assert not target.requires_grad
    # One draw for the whole minibatch: equal rows stay equal.
    equal = observation[:1].expand(6, 4)
    rows = module.forward_train({Columns.OBS: equal, Columns.NEXT_OBS: equal})[QF_PREDS]
    assert torch.allclose(rows, rows[:1].expand_as(rows))
    with noisynet.mean_weights(module):
        output = module.forward_train(batch)
    assert torch.allclose(output[QF_PREDS], output[QF_TARGET_NEXT_PREDS])
    assert torch.allclose(output[QF_PREDS], output[QF_NEXT_PREDS])


def test_distributional_double_and_dueling_have_the_shapes_that_the_loss_takes() -> None:
    module = module_of(dqn(double_q=True, dueling=True, num_atoms=11, v_min=0.0, v_max=9.0))
    batch = {Columns.OBS: torch.randn(6, 4), Columns.NEXT_OBS: torch.randn(6, 4)}
    output = module.forward_train(batch)
    assert output[QF_PREDS].shape == output[QF_NEXT_PREDS].shape == (6, 2)
    assert output[QF_LOGITS].shape == output[QF_TARGET_NEXT_PROBS].shape == (6, 2, 11)


def test_inference_is_the_mean_weights_and_exploration_a_draw_for_each_row() -> None:
    module = module_of(dqn(), inference_only=True)
    observation = torch.randn(1, 4).expand(200, 4)
    with noisynet.mean_weights(module):
        sure = module.compute_q_values({Columns.OBS: observation})[QF_PREDS].argmax(-1)
    assert torch.equal(module.forward_inference({Columns.OBS: observation})["actions"], sure)
    explored = module.forward_exploration({Columns.OBS: observation}, t=0)["actions"]
    assert 0 < (explored != sure).float().mean() < 1


def test_acting_holds_its_noise_from_the_first_learned_weights_on() -> None:
    actor, learner = module_of(dqn(), inference_only=True), module_of(dqn())
    batch = {Columns.OBS: torch.randn(3, 4)}

    def seeds() -> list[int]:
        actor.forward_exploration(batch, t=0)
        return list(actor._acting._seeds)

    # The learner's initial weights are no learned ones: a warm-up has new noise at every step.
    actor.set_state(learner.get_state(inference_only=True))
    assert seeds() != seeds()
    with torch.no_grad():
        for sigma in noisynet.sigma_parameters(learner):
            sigma.mul_(1.01)
    actor.set_state(learner.get_state(inference_only=True))
    held = seeds()
    assert len(set(held)) == 3
    assert seeds() == held
    # The same weights again are no update.
    actor.set_state(learner.get_state(inference_only=True))
    assert seeds() == held


def test_held_noise_follows_a_module_that_is_moved() -> None:
    actor, learner = module_of(PPOConfig(), inference_only=True), module_of(PPOConfig())
    actor.set_state(learner.get_state(inference_only=True))
    batch = {Columns.OBS: torch.randn(3, 4)}
    name = Columns.ACTION_DIST_INPUTS
    acted = actor.forward_exploration(batch)
    sampled = {**batch, NOISE_SEED: acted[NOISE_SEED]}
    learned = learner.forward_train(sampled)
    for module in (actor, learner):
        module.double()
    for one in (batch, sampled):
        one[Columns.OBS] = one[Columns.OBS].double()
    again = actor.forward_exploration(batch)
    assert torch.equal(again[NOISE_SEED], acted[NOISE_SEED])
    assert {flat.dtype for flat in actor._acting._held.flats} == {torch.float64}
    assert torch.allclose(again[name], acted[name].double(), atol=1e-5)
    assert torch.allclose(learner.forward_train(sampled)[name], learned[name].double(), atol=1e-5)


def test_target_networks_take_over_sigma_and_no_noise() -> None:
    module = module_of(dqn())
    with torch.no_grad():
        for sigma in noisynet.sigma_parameters(module.encoder):
            sigma.mul_(2)
    for online, target in module.get_target_network_pairs():
        assert online.state_dict().keys() == target.state_dict().keys()
        assert not any("noise" in key for key in target.state_dict())
    from ray.rllib.utils.torch_utils import update_target_network

    online, target = module.get_target_network_pairs()[0]
    update_target_network(main_net=online, target_net=target, tau=1.0)
    for key, value in online.state_dict().items():
        assert torch.equal(value, target.state_dict()[key])


@pytest.mark.parametrize(
    ("noise_in", "expected"),
    [
        ("all", {"encoder.net.mlp.0", "af.net.mlp.0", "af.net.mlp.2"}),
        ("head", {"af.net.mlp.0", "af.net.mlp.2"}),
        ("last", {"af.net.mlp.2"}),
    ],
)
def test_where_the_noise_is(noise_in: str, expected: set[str]) -> None:
    module = module_of(
        dqn(dueling=False), inference_only=True, noise_in=noise_in, noise="independent", sigma0=0.1
    )
    layers = noisynet.noisy_layers(module)
    assert set(layers) == expected
    for layer in layers.values():
        assert layer.noise == "independent"
        assert torch.allclose(layer.weight_sigma, torch.tensor(0.1))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (PPOConfig(), {"pi.net.mlp.2"}),  # an actor has no value function
        (dqn(dueling=False), {"encoder.net.mlp.0", "af.net.mlp.0", "af.net.mlp.2"}),
    ],
)
def test_where_the_noise_is_by_default(config: Any, expected: set[str]) -> None:
    module = module_of(config, inference_only=True, noise_in=None)
    assert set(noisynet.noisy_layers(module)) == expected


def test_noise_is_in_both_outputs_of_ppo_s_learner() -> None:
    layers = noisynet.noisy_layers(module_of(PPOConfig(), noise_in=None))
    assert set(layers) == {"pi.net.mlp.2", "vf.net.mlp.2"}


def test_images() -> None:
    model = {"conv_filters": [[4, 8, 4], [8, 4, 2]], "fcnet_hiddens": [16]}
    module = module_of(dqn(), observations=IMAGES, model=model)
    images = torch.rand(3, 64, 64, 4)
    output = module.forward_train({Columns.OBS: images, Columns.NEXT_OBS: images})
    assert output[QF_PREDS].shape == (3, 2)
    assert module.forward_exploration({Columns.OBS: images}, t=0)["actions"].shape == (3,)


def test_ppo_learns_under_the_noise_that_acted_though_actors_have_no_critic() -> None:
    actor = module_of(PPOConfig(), inference_only=True)
    learner = module_of(PPOConfig())
    assert len(noisynet.noisy_layers(actor)) < len(noisynet.noisy_layers(learner))
    actor.set_state(learner.get_state(inference_only=True))
    batch = {Columns.OBS: torch.randn(5, 4)}
    acted = actor.forward_exploration(batch)
    seeds = acted[NOISE_SEED]
    assert seeds.shape == (5,)
    assert len(seeds.unique()) == 5
    order = torch.tensor([3, 1, 4, 1])
    learned = {Columns.OBS: batch[Columns.OBS][order], NOISE_SEED: seeds[order]}
    name = Columns.ACTION_DIST_INPUTS
    assert torch.allclose(learner.forward_train(learned)[name], acted[name][order], atol=1e-6)
    assert torch.equal(learner.compute_values(learned), learner.compute_values(dict(learned)))
    # Held until new weights come, whatever the number of environments that still play.
    assert torch.equal(actor.forward_exploration(batch)[NOISE_SEED], seeds)
    some = {Columns.OBS: batch[Columns.OBS][:3]}
    assert torch.allclose(actor.forward_exploration(some)[name], acted[name][:3], atol=1e-6)
    actor.set_state(learner.get_state(inference_only=True))
    assert not torch.equal(actor.forward_exploration(batch)[NOISE_SEED], seeds)


def test_ppo_refuses_samples_without_their_draw() -> None:
    module = module_of(PPOConfig())
    expected = "^NoisyPPORLModule: got a batch without 'noise_seed', expected one that was sampled"
    with pytest.raises(ValueError, match=expected):
        module.forward_train({Columns.OBS: torch.randn(2, 4)})


@pytest.mark.parametrize("epsilon", [0.1, [(0, 1.0), (10_000, 0.05)]])
def test_epsilon_left_on_is_named_once_with_the_cure(epsilon: Any) -> None:
    expected = r"^NoisyDQNRLModule: ε-greedy explores beside .* off with \.training\(epsilon=0\.0\)"
    with pytest.warns(UserWarning, match=expected):
        module_of(dqn(epsilon=epsilon))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        module_of(dqn(epsilon=epsilon), inference_only=True)
        module_of(dqn())
        module_of(dqn(epsilon=[(0, 0.0), (100, 0.0)]))


def test_an_entropy_bonus_and_the_host_s_own_flag_are_named() -> None:
    with pytest.warns(UserWarning, match=r"bonus of 0\.01 .* off with \.training\(entropy_coeff=0"):
        add_noise(PPOConfig().training(entropy_coeff=0.01))
    with pytest.warns(UserWarning, match="noisy=True of the host does nothing in the new API"):
        add_noise(dqn(noisy=True))


def test_an_algorithm_that_is_not_supported() -> None:
    expected = (
        "^add_noise: got a BCConfig; supported are DQNConfig, SACConfig, PPOConfig of the new"
    )
    with pytest.raises(TypeError, match=expected):
        add_noise(BCConfig())


def test_the_default_learner_has_the_fused_adam_and_another_one_stays() -> None:
    class Own(PPOTorchLearner):
        pass

    assert add_noise(PPOConfig()).learner_class is NoisyPPOTorchLearner
    assert add_noise(dqn()).learner_class is NoisyDQNTorchLearner
    assert add_noise(PPOConfig().learners(learner_class=Own)).learner_class is Own


@pytest.mark.parametrize("config", [dqn, PPOConfig])
@pytest.mark.parametrize("odd", [0.1, float("nan"), float("inf"), None])
def test_our_learner_makes_the_host_s_step_where_gradients_are_finite_and_where_not(
    config: Any, odd: float | None
) -> None:
    def stepped(learner_class: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        noisy = add_noise(config().rl_module(model_config=SMALL))
        if learner_class is not None:
            noisy.learners(learner_class=learner_class)
        # The host looks for NaN in a gradient that is missing, too, unless it is told not to look.
        noisy.torch_skip_nan_gradients = odd is None
        learner = noisy.build_learner(
            spaces={"default_policy": (CARTPOLE.observation_space, CARTPOLE.action_space)}
        )
        gradients = {name: torch.full_like(one, 0.1) for name, one in learner._params.items()}
        last = list(gradients)[-1]
        if odd is None:
            gradients[last] = None
        else:
            gradients[last].fill_(odd)
        learner.apply_gradients(gradients)
        return [one.detach() for one in learner._params.values()]

    stock = config().get_default_learner_class()
    for ours, theirs in zip(stepped(None), stepped(stock), strict=True):
        assert torch.isfinite(ours).all()
        assert torch.allclose(ours, theirs, atol=1e-7)


def test_the_old_api_stack() -> None:
    config = DQNConfig().api_stack(
        enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
    )
    with pytest.raises(ValueError, match=r"^add_noise: got a config of the old API"):
        add_noise(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "white"}, "^noise: got 'white', expected one of factorised, independent$"),
        ({"noise_in": "tail"}, "^noise_in: got 'tail', expected one of 'all', 'head', 'last'$"),
        ({"sigma0": -1.0}, "^sigma0: got -1"),
    ],
)
def test_unknown_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        add_noise(dqn(), **options)


def test_a_recurrent_module() -> None:
    with pytest.raises(ValueError, match="got a recurrent module, expected one with use_lstm=Fal"):
        module_of(PPOConfig(), model={"use_lstm": True, "max_seq_len": 4})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_lstm": True, "max_seq_len": 4}, "^NoisyPPORLModule: got a recurrent module"),
        ({"noise_in": "tail"}, "^noise_in: got 'tail'"),
    ],
)
def test_an_actor_tells_at_its_first_forward_why_it_is_refused(
    options: dict[str, Any], message: str
) -> None:
    # The learner, which the host builds next, tells at once.
    for inference_only in (True, False):
        spec = RLModuleSpec(
            module_class=NoisyPPORLModule,
            model_config={**DefaultModelConfig().__dict__, **options},
            observation_space=CARTPOLE.observation_space,
            action_space=CARTPOLE.action_space,
            inference_only=inference_only,
        )
        if not inference_only:
            with pytest.raises(ValueError, match=message):
                spec.build()
            continue
        actor = spec.build()
        batch = {Columns.OBS: torch.randn(2, 4)}
        for forward in (actor.forward_inference, actor.forward_exploration):
            with pytest.raises(ValueError, match=message):
                forward(batch)


@pytest.mark.parametrize("config", [dqn, PPOConfig])
def test_noise_whose_rows_are_not_the_batch_s_is_refused(config: Any) -> None:
    """With as many entities as environments, too."""
    actor, learner = module_of(config(), inference_only=True), module_of(config())
    for entities in (2, 3):
        sets = {Columns.OBS: torch.randn(3, entities, 4), NOISE_SEED: torch.arange(3)}
        expected = f"^{type(actor).__name__}: got noise in layers whose input has other rows than"
        with pytest.raises(ValueError, match=expected):
            actor.forward_exploration(sets, t=0)
        if config is PPOConfig:
            with pytest.raises(ValueError, match=expected):
                learner.forward_train(sets)
            with pytest.raises(ValueError, match=expected):
                learner.compute_values(sets)
