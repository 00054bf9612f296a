"""Noisy policies for continuous actions: TD3, DDPG and SAC, TQC and CrossQ of sb3-contrib."""

from __future__ import annotations

from typing import Any, ClassVar

from sb3_contrib.crossq.policies import Actor as CrossQHostActor
from sb3_contrib.crossq.policies import CrossQPolicy
from sb3_contrib.tqc.policies import Actor as TQCHostActor
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.sac.policies import Actor as SACHostActor
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import Actor as TD3HostActor
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from ...layers import Draw, noisy_layers
from ..host import run_under
from .algorithm import ALGORITHMS
from .noise_options import add_noise
from .noisy_policy import NoisyNetwork, draw_for, made_noisy, uncompiled
from .off_policy import OffPolicyNoise, Redraw


class _NoisyActor(NoisyNetwork):
    """A noisy actor of the host."""

    def act(self, obs: PyTorchObs, drawn: Draw | None, deterministic: bool) -> Tensor:
        """Return actions from -1 to 1 under a draw, or under the mean weights: (N, …).

        With `deterministic`, a policy that samples returns its mode.
        """
        raise NotImplementedError

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        drawn = None if deterministic else draw_for(self, observation)
        return self.act(observation, drawn, deterministic)


class NoisyTD3Actor(_NoisyActor, TD3HostActor):
    """Actor of `NoisyTD3Policy` and `NoisyDDPGPolicy`."""

    def forward(self, obs: Tensor) -> Tensor:
        """Return actions for the host's losses: under noise if σ is learned, else by the means."""
        return self._as_learned(super().forward, obs)

    def act(self, obs: PyTorchObs, drawn: Draw | None, deterministic: bool) -> Tensor:  # noqa: ARG002
        """Return actions from -1 to 1 under a draw, or under the mean weights: (N, …)."""
        return run_under(drawn, self, super().forward, obs)


class _SquashedActor(_NoisyActor):
    """A noisy actor with a squashed Gaussian on top."""

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Return samples under the noise in force, or modes under the mean weights: (N, …)."""
        return self.act(obs, None, True) if deterministic else super().forward(obs)

    def action_log_prob(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        """Return actions and their log π(a|s, ε) for the host's losses.

        The log-probability is under the draw that gave the squashed Gaussian.
        """
        host: Any = super()
        return self._as_learned(host.action_log_prob, obs)

    def act(self, obs: PyTorchObs, drawn: Draw | None, deterministic: bool) -> Tensor:
        """Return samples, or modes if `deterministic`, under a draw or the mean weights: (N, …)."""
        forward = super().forward
        return run_under(
            drawn,
            self,
            lambda one: forward(one, deterministic),
            obs,
            probe=(lambda one: forward(one, True), obs),
        )


class NoisySACActor(_SquashedActor, SACHostActor):
    """Actor of `NoisySACPolicy`."""


class NoisyTQCActor(_SquashedActor, TQCHostActor):
    """Actor of `NoisyTQCPolicy`."""


class NoisyCrossQActor(_SquashedActor, CrossQHostActor):
    """Actor of `NoisyCrossQPolicy`."""


class NoisyContinuousPolicy(OffPolicyNoise):
    """A policy with a noisy actor, and with critics that may have noise of their own.

    In the host's losses the noise is fresh, one draw for the batch at every forward. The actor, a
    target actor and, with `critic_noise`, the critics and their targets each have their own draw.
    With `learned=False`, noise is only for acting, and the losses see the mean weights (Plappert et
    al., arXiv 1706.01905).
    """

    default_redraw: Redraw = "episode"
    noisy_actor_class: ClassVar[type[_NoisyActor]]
    actor: Any
    critic: Any

    def __init__(self, *arguments: Any, critic_noise: bool = False, **options: Any) -> None:
        self.critic_noise = critic_noise
        if critic_noise and not options.get("learned", True):
            raise ValueError(
                "critic_noise: got True with learned=False, expected it with noise that is "
                "learned: noise that adapts is there to act"
            )
        super().__init__(*arguments, **options)

    @property
    def noisy_network(self) -> Any:
        """The network whose noise explores."""
        return uncompiled(self.actor)

    @property
    def scaled_modules(self) -> tuple[nn.Module, ...]:
        """The actor and its target: the critics' noise does not explore."""
        target = getattr(self, "actor_target", None)
        return (self.actor,) if target is None else (self.actor, target)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        for network in (self.actor, self.critic):
            # The host's choice of parameters: it learns a shared features extractor with the actor.
            groups = network.optimizer.param_groups
            parameters = [one for group in groups for one in group["params"]]
            network.optimizer = self._optimizer_of(network, lr_schedule, parameters)
        self._watch_updates()

    def _watch_updates(self) -> None:
        self.actor.optimizer.register_step_post_hook(lambda *_: self._after_update())

    def make_actor(self, features_extractor: Any = None) -> Any:
        """Build one actor, online or target, with noisy layers."""
        host: Any = super()
        actor = host.make_actor(features_extractor)
        return made_noisy(actor, self.noisy_actor_class, self._noise, policy=type(self).__name__)

    def make_critic(self, features_extractor: Any = None) -> Any:
        """Build critics, online or target, with noisy layers if `critic_noise` is on.

        Raises ValueError if critics without noise share a features extractor that has noise.
        """
        host: Any = super()
        critic = host.make_critic(features_extractor=features_extractor)
        if self.critic_noise:
            add_noise(critic, self._noise, policy=type(self).__name__)
        elif noisy_layers(critic):
            raise ValueError(
                f"{type(self).__name__}: noise_in='all' of share_features_extractor=True is in the "
                "critics, too: pass critic_noise=True, or noise_in='head'"
            )
        return critic

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        drawn = self._drawn_for(observation, deterministic)
        return self.actor.act(observation, drawn, deterministic)

    def greedy(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Choose the action, or the Gaussian's mode, under a draw or the mean weights: (N, …).

        Actions are from -1 to 1, as the host stores them and adds its own action noise to them.
        """
        return self.actor.act(obs, drawn, True)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "critic_noise": self.critic_noise}


class NoisyTD3Policy(NoisyContinuousPolicy, TD3Policy):
    """Exploration by learned noise in `stable_baselines3.TD3`: `TD3(NoisyTD3Policy, env, …)`.

    Leave out `action_noise`. `policy_kwargs` accepts the options of the host's policy, and also
    `noise`, `sigma0` and `learned` (as in `noisynet.NoisyLinear`); `noise_in`: "all" (every fully
    connected layer of the actor, the default), "head" (those after the features extractor) or
    "last" (the output); `redraw`: "episode" (in each environment when its episode ends) or "update"
    (after every update of the actor); and `critic_noise` (noise in the critics and their targets as
    well). Raises TypeError in another algorithm, and ValueError for unknown options or a network
    without `nn.Linear`; warns of action noise left on.
    Sources: Fortunato et al., §3.1; Plappert et al., arXiv 1706.01905.
    """

    algorithm = ALGORITHMS["NoisyTD3Policy"]
    noisy_actor_class = NoisyTD3Actor


class NoisyDDPGPolicy(NoisyContinuousPolicy, TD3Policy):
    """Exploration by learned noise in `stable_baselines3.DDPG`: `DDPG(NoisyDDPGPolicy, env, …)`.

    Options, errors and sources are those of `NoisyTD3Policy`.
    """

    algorithm = ALGORITHMS["NoisyDDPGPolicy"]
    noisy_actor_class = NoisyTD3Actor


class NoisySACPolicy(NoisyContinuousPolicy, SACPolicy):
    """Learned noise beside SAC's squashed Gaussian: `SAC(NoisySACPolicy, env, …)`.

    The noise is in the layers that lead to the Gaussian's mean; the layer of its width has none.
    The host's losses see log π(a|s, ε) of the Gaussian under one draw. So the temperature controls
    the Gaussian's entropy, E_ε H(π(·|s, ε)), which is at most that of the policy as a whole:
    exploration by the noise of the weights comes on top. Options, errors and sources are those of
    `NoisyTD3Policy`; warns of gSDE left on, too.
    """

    algorithm = ALGORITHMS["NoisySACPolicy"]
    noisy_actor_class = NoisySACActor


class NoisyTQCPolicy(NoisyContinuousPolicy, TQCPolicy):
    """Learned noise beside the squashed Gaussian of `sb3_contrib.TQC`: `TQC(NoisyTQCPolicy, env)`.

    Everything else is as with `NoisySACPolicy`.
    """

    algorithm = ALGORITHMS["NoisyTQCPolicy"]
    noisy_actor_class = NoisyTQCActor


class NoisyCrossQPolicy(NoisyContinuousPolicy, CrossQPolicy):
    """Learned noise beside the squashed Gaussian of `sb3_contrib.CrossQ`.

    `CrossQ(NoisyCrossQPolicy, env, …)`. Everything else is as with `NoisySACPolicy`, except that
    there are no target networks: noisy critics see the current and the next observations in one
    forward, under one draw.
    """

    algorithm = ALGORITHMS["NoisyCrossQPolicy"]
    noisy_actor_class = NoisyCrossQActor
