"""Noisy RLModules for RLlib's DQN, SAC and PPO, and a function that puts them into a config."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import torch
from gymnasium import spaces
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.default_dqn_rl_module import (
    ATOMS,
    QF_LOGITS,
    QF_NEXT_PREDS,
    QF_PREDS,
    QF_PROBS,
    QF_TARGET_NEXT_PREDS,
    QF_TARGET_NEXT_PROBS,
)
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import Tensor, nn

from ...layers import NoiseName, mean_weights, noisify, noisy_layers, sigma_parameters
from ..control import RecentObservations
from ..host import Forward, takes_rows
from .learners import LEARNERS
from .seeds import ActingNoise, DrawContext, LearningNoise

NOISE_SEED = "noise_seed"
"""The column of PPO's samples with the seed of the draw under which each action was chosen."""

NOISE_IN = ("all", "head", "last")

Config = TypeVar("Config", bound=AlgorithmConfig)


class _HeldNoise:
    """A mixin for modules that rebuild their noise from its seeds after they have been moved."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        host: Any = super()
        host._apply(fn, recurse)
        for noise in vars(self).values():
            if isinstance(noise, ActingNoise | LearningNoise):
                noise.forget()
        return self


class _OffPolicyNoise(_HeldNoise):
    """A mixin for modules that hold the draws for acting once learned weights have arrived."""

    _acting: ActingNoise
    _learned: bool

    def set_state(self, state: Any) -> None:
        """Load weights; if they have changed, draw new noise for acting."""
        module: Any = self
        host: Any = super()
        # All networks start with the same σ, so another one has been learned.
        sigma = min(sigma_parameters(module), key=lambda one: one.numel())
        former = sigma.detach().clone()
        host.set_state(state)
        if not torch.equal(former, sigma):
            self._acting.redraw()
            self._learned = True

    def _acting_noise(self, batch: dict[str, Any], probe: Forward) -> DrawContext:
        # Under one draw, the whole warm-up might take the same action.
        if not self._learned:
            self._acting.redraw()
        module: Any = self
        _check_rows(module, probe, batch)
        _keep_seen(module, batch)
        return self._acting.of_rows(module, _rows(batch))[1]


class NoisyDQNRLModule(_OffPolicyNoise, DefaultDQNTorchRLModule):
    """Exploration by learned noise in RLlib's DQN, with whichever of its extensions are on.

    `model_config` takes `noise`, `sigma0` (as `noisynet.NoisyLinear` has them) and `noise_in`:
    "all" (every fully connected layer), "head" (those after the encoder) or "last" (the outputs).

    Exploration uses a draw for each environment, held until new weights arrive; before the first
    update, it is redrawn at every step. Inference uses the mean weights. In training, every forward
    draws for itself: the online network has ε, the target network ε′, and the choice of the next
    action ε″. Raises ValueError for unknown options, for a module that is recurrent or has no
    `nn.Linear`, and for noise in layers whose rows are not those of the batch; warns of ε-greedy
    left on. A module for inference alone raises at its first forward, since the host loses an error
    from building an actor. Source: Fortunato et al., §3.1, eq. 15 and 16.
    """

    def setup(self) -> None:
        """Build the host's networks, and make their layers noisy."""
        # Read first, as in NoisyPPORLModule.
        is_actor = self.inference_only
        super().setup()
        _make_noisy(self, is_actor=is_actor)
        # Warn once for each agent: its actors are built for inference only.
        epsilon = self.model_config["epsilon"]
        if not self.inference_only and _ever_positive(epsilon):
            warnings.warn(
                f"{type(self).__name__}: ε-greedy explores beside the noise, ε = {epsilon}; turn "
                "it off with .training(epsilon=0.0)",
                stacklevel=2,
            )
        self._acting = ActingNoise()
        self._learned = False
        self.seen: RecentObservations | None = None

    def values(self, batch: dict[str, Any]) -> Tensor:
        """Return Q (B, actions) under the noise in force."""
        q: Any = self.compute_q_values(batch)[QF_PREDS]
        return q

    def _forward_inference(self, batch: dict[str, Any]) -> dict[str, Any]:
        _check_noisy(self)
        with torch.no_grad(), mean_weights(self):
            return super()._forward_inference(batch)

    def _forward_exploration(self, batch: dict[str, Any], t: int) -> dict[str, Any]:
        under_noise = self._acting_noise(batch, self.compute_q_values)
        with torch.no_grad(), under_noise():
            return super()._forward_exploration(batch, t)

    def _forward_train(self, batch: dict[str, Any]) -> dict[str, Any]:
        following = {Columns.OBS: batch[Columns.NEXT_OBS]}
        online = self.compute_q_values({Columns.OBS: batch[Columns.OBS]})
        with torch.no_grad():
            target = self.forward_target(following)
        output = {QF_PREDS: online[QF_PREDS], QF_TARGET_NEXT_PREDS: target[QF_PREDS]}
        if self.uses_double_q:
            # The host asks for both observations in one forward, which would share one draw.
            with torch.no_grad():
                output[QF_NEXT_PREDS] = self.compute_q_values(following)[QF_PREDS]
        if self.num_atoms > 1:
            output[ATOMS] = target[ATOMS]
            output[QF_LOGITS] = online[QF_LOGITS]
            output[QF_PROBS] = online[QF_PROBS]
            output[QF_TARGET_NEXT_PROBS] = target[QF_PROBS]
        return output


class NoisySACRLModule(_OffPolicyNoise, DefaultSACTorchRLModule):
    """Exploration by learned noise in the actor of RLlib's SAC.

    The critics have no noise. Options, errors, exploration and inference are as in
    `NoisyDQNRLModule`, and actions are sampled from the policy, as in the host. In training, the
    actor draws for the observations, and again for the next observations.
    Source: Fortunato et al., §3.1.
    """

    def setup(self) -> None:
        """Build the host's networks, and make the actor's layers noisy."""
        # Read first, as in NoisyPPORLModule.
        is_actor = self.inference_only
        super().setup()
        _make_noisy(self, is_actor=is_actor, within=("pi_encoder.", "pi."))
        self._acting = ActingNoise()
        self._learned = False
        self.seen: RecentObservations | None = None

    def values(self, batch: dict[str, Any]) -> Tensor:
        """Return the mean of continuous actions, or logits of discrete ones, (B, actions)."""
        return _chosen(self, super()._forward_inference(batch))

    def _forward_inference(self, batch: dict[str, Any]) -> dict[str, Any]:
        _check_noisy(self)
        with torch.no_grad(), mean_weights(self):
            return super()._forward_inference(batch)

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:  # noqa: ARG002 - as the host calls it
        # The host's own method calls the forward for inference.
        act = super()._forward_inference
        under_noise = self._acting_noise(batch, act)
        with torch.no_grad(), under_noise():
            return act(batch)


class NoisyPPORLModule(_HeldNoise, DefaultPPOTorchRLModule):
    """Exploration by learned noise in RLlib's PPO.

    Options and errors are those of `NoisyDQNRLModule`. Exploration holds one draw for each
    environment over the rollout, until new weights arrive, and stores its seed with each action.
    From the seed, the learner computes the same noise for the policy, the value function and the
    advantages, so that the first ratio is 1. Inference uses the mean weights.
    Source: Fortunato et al., §3.2.
    """

    def setup(self) -> None:
        """Build the host's networks, and make their layers noisy."""
        # Read first, since the host's setup changes it in a recurrent module.
        is_actor = self.inference_only
        super().setup()
        _make_noisy(self, is_actor=is_actor)
        self._acting = ActingNoise()
        self._learning = LearningNoise()
        self.seen: RecentObservations | None = None

    def set_state(self, state: Any) -> None:
        """Load weights, and draw new noise for the next rollout."""
        super().set_state(state)
        self._acting.redraw()

    def values(self, batch: dict[str, Any]) -> Tensor:
        """Return logits of discrete actions, or the mean of continuous ones, (B, actions)."""
        return _chosen(self, super()._forward(batch))

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        _check_noisy(self)
        with mean_weights(self):
            return super()._forward_inference(batch, **kwargs)

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        _check_rows(self, self._whole, batch)
        _keep_seen(self, batch)
        seeds, under_noise = self._acting.of_rows(self, _rows(batch))
        with under_noise():
            output = super()._forward_exploration(batch, **kwargs)
        output[NOISE_SEED] = seeds
        return output

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        with self._rollout_noise(batch)():
            return super()._forward_train(batch, **kwargs)

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Estimate values (B,) under the draws that the batch was sampled under."""
        with self._rollout_noise(batch)():
            values: Any = super().compute_values(batch, embeddings)
        return values

    def _rollout_noise(self, batch: dict[str, Any]) -> DrawContext:
        seeds = batch.get(NOISE_SEED)
        if seeds is None:
            raise ValueError(
                f"{type(self).__name__}: got a batch without {NOISE_SEED!r}, expected one that was "
                "sampled by this module with explore=True"
            )
        _check_rows(self, self._whole, batch)
        return self._learning.under(self, seeds)

    def _whole(self, batch: dict[str, Any]) -> None:
        super()._forward(batch)
        if not self.inference_only:
            super().compute_values(batch)


_MODULES: dict[type[AlgorithmConfig], type[Any]] = {
    DQNConfig: NoisyDQNRLModule,
    SACConfig: NoisySACRLModule,
    PPOConfig: NoisyPPORLModule,
}


def add_noise(
    config: Config,
    *,
    noise: NoiseName = "factorised",
    sigma0: float | None = None,
    noise_in: str = "all",
) -> Config:
    """Set the noisy RLModule for an algorithm in its config, and return the config.

    Options are those of `NoisyDQNRLModule`. The config's RLModule, if it has one, is replaced; so
    is the default learner of DQN and PPO, by one with the fused Adam and fewer checks. Raises
    TypeError for an algorithm that is not supported, and ValueError for unknown options and for the
    old API stack; warns of an entropy bonus and of the host's `noisy=True`.
    """
    module = next((ours for kind, ours in _MODULES.items() if type(config) is kind), None)
    if module is None:
        supported = ", ".join(kind.__name__ for kind in _MODULES)
        raise TypeError(
            f"add_noise: got a {type(config).__name__}; supported are {supported} of the new API "
            "stack"
        )
    if not config.enable_rl_module_and_learner:
        raise ValueError(
            "add_noise: got a config of the old API stack, expected "
            ".api_stack(enable_rl_module_and_learner=True, "
            "enable_env_runner_and_connector_v2=True)"
        )
    _check_noise_in(noise_in)
    noisify(nn.Linear(1, 1), noise=noise, sigma0=sigma0)
    bonus = getattr(config, "entropy_coeff", 0.0)
    if bonus:
        warnings.warn(
            f"{module.__name__}: an entropy bonus of {bonus} explores beside the noise; turn it "
            "off with .training(entropy_coeff=0.0)",
            stacklevel=2,
        )
    if getattr(config, "noisy", False):
        warnings.warn(
            f"{module.__name__}: noisy=True of the host does nothing in the new API stack; leave "
            "it out",
            stacklevel=2,
        )
    learner = LEARNERS.get(config.learner_class)
    if learner is not None:
        config.learners(learner_class=learner)
    options = {"noise": noise, "sigma0": sigma0, "noise_in": noise_in}
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=module, model_config=options))
    return config


def _ever_positive(epsilon: Any) -> bool:
    """Return whether ε, a number or a schedule [(step, value), …], is above 0 at any time."""
    schedule = epsilon if isinstance(epsilon, list | tuple) else [(0, epsilon)]
    return any(value != 0.0 for _, value in schedule)


def _check_noise_in(noise_in: str) -> None:
    if noise_in not in NOISE_IN:
        expected = ", ".join(map(repr, NOISE_IN))
        raise ValueError(f"noise_in: got {noise_in!r}, expected one of {expected}")


def _make_noisy(module: Any, *, is_actor: bool, within: tuple[str, ...] = ("",)) -> None:
    """Make the chosen layers of an RLModule noisy; in an actor, keep an error for its forward.

    The host builds the actors first, and loses the error if one in another process cannot be built;
    the learner's module raises it right after.
    """
    module._refused = None
    try:
        _noisify(module, within)
    except ValueError as error:
        if not is_actor:
            raise
        module._refused = error


def _check_noisy(module: Any) -> None:
    if module._refused is not None:
        raise module._refused


def _check_rows(module: Any, probe: Forward, batch: dict[str, Any]) -> None:
    """Raise ValueError for noise in layers whose rows are not those of the batch."""
    _check_noisy(module)
    if not takes_rows(module, probe, {Columns.OBS: batch[Columns.OBS]}):
        raise ValueError(
            f"{type(module).__name__}: got noise in layers whose input has other rows than the "
            "batch, such as entities or times; expected noise_in='head' or 'last'"
        )


def _keep_seen(module: Any, batch: dict[str, Any]) -> None:
    if module.seen is not None:
        module.seen.add(batch[Columns.OBS])


def _chosen(module: Any, output: dict[str, Any]) -> Tensor:
    """Return logits of discrete actions, or the mean of continuous ones, (B, actions)."""
    inputs = output[Columns.ACTION_DIST_INPUTS]
    if isinstance(module.action_space, spaces.Discrete):
        return inputs
    return module.get_inference_action_dist_cls().from_logits(inputs).to_deterministic().sample()


def _noisify(module: Any, within: tuple[str, ...]) -> None:
    """Make layers of an RLModule noisy, by its model_config, in the parts that `within` names."""
    name, options = type(module).__name__, module.model_config
    # The host knows whether a module is recurrent only after `setup`, and for SAC not even then.
    if module.get_initial_state() or options.get("use_lstm"):
        raise ValueError(f"{name}: got a recurrent module, expected one with use_lstm=False")
    noise_in = options.get("noise_in", "all")
    _check_noise_in(noise_in)
    linears = [
        path
        for path, part in module.named_modules()
        if type(part) is nn.Linear and path.startswith(within)
    ]
    if noise_in != "all":
        linears = [path for path in linears if not path.startswith(("encoder.", "pi_encoder."))]
    if noise_in == "last":
        linears = list({path.partition(".")[0]: path for path in linears}.values())
    if not linears:
        raise ValueError(
            f"{name}: noise_in={noise_in!r} finds no nn.Linear, expected at least one to make noisy"
        )
    noisify(
        module,
        lambda path, _: path in linears,
        noise=options.get("noise", "factorised"),
        sigma0=options.get("sigma0"),
    )
    assert noisy_layers(module), "some were chosen"


def _rows(batch: dict[str, Any]) -> int:
    observation = batch[Columns.OBS]
    while isinstance(observation, dict):
        observation = next(iter(observation.values()))
    return int(observation.shape[0])
