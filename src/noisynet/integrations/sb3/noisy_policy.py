"""The common part of the noisy policies and networks, and an optimizer that has σ."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar

from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer, RMSprop

from ...layers import Draw, NoiseName, draw, mean_weights, noisy_layers, sigma_parameters
from .algorithm import check_algorithm
from .extractors import check_options_of, extractor_for
from .noise_options import NoiseOptions, add_noise
from .rmsprop import BlockedRMSprop, supports

_PREDICTING = threading.RLock()
"""One prediction at a time: the draw in force in a layer is in force for all threads."""


class NoisyModel(BasePolicy):
    """A policy or network with noise, for several threads and for copies."""

    def predict(self, *arguments: Any, **options: Any) -> Any:
        """Choose actions as the host does, in one thread at a time."""
        with _PREDICTING:
            return super().predict(*arguments, **options)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if "action_dist" in state:
            # The graph of the last minibatch hangs on it, and cannot be copied.
            state["action_dist"] = bare = copy.copy(state["action_dist"])
            bare.distribution = bare.gaussian_actions = None
        return state


class NoisyPolicy(NoisyModel):
    """The base of the noisy policies; it comes before the host's policy among the bases."""

    algorithm: ClassVar[type[BaseAlgorithm]]

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule | None = None,
        *,
        noise: NoiseName = "factorised",
        sigma0: float | None = None,
        noise_in: str = "all",
        learned: bool = True,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        normalize_images: bool = True,
        **options: Any,
    ) -> None:
        algorithm = self._check_algorithm()
        if lr_schedule is None:  # ARS gives none, and is refused by now
            raise TypeError(f"{type(self).__name__}: lr_schedule: got none, expected a schedule")
        # The host's constructor builds the networks, which need this.
        self._noise = NoiseOptions(noise=noise, sigma0=sigma0, noise_in=noise_in, learned=learned)
        if features_extractor_class is None:
            features_extractor_class = extractor_for(
                observation_space, normalize_images, policy=type(self).__name__
            )
            check_options_of(features_extractor_class, options.get("features_extractor_kwargs"))
        # The host gives this advice only to policies with the class name of its own perceptron.
        if isinstance(algorithm, A2C | PPO) and features_extractor_class is FlattenExtractor:
            algorithm._maybe_recommend_cpu(type(self).__name__)  # pyright: ignore[reportPrivateUsage]
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            features_extractor_class=features_extractor_class,
            normalize_images=normalize_images,
            **options,
        )

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights; raise ValueError for those of a policy with noise elsewhere or nowhere."""
        noisy, saved = map(_names_of_sigma, (self.state_dict(), state_dict))
        if strict and noisy and not saved:
            raise ValueError(
                f"{type(self).__name__}: got weights without σ, expected a noisy policy's; to "
                "begin with the weights of a plain model: set_parameters({'policy': plain."
                "get_parameters()['policy']}, exact_match=False)"
            )
        if strict and noisy and noisy != saved:
            raise ValueError(
                f"{type(self).__name__}: got σ of {len(saved)} tensors, expected {len(noisy)}: the "
                "policy was saved with noise in other layers; give noise_in and critic_noise as it "
                "had them, to load() in custom_objects={'policy_kwargs': …}"
            )
        return super().load_state_dict(state_dict, strict, assign)

    def _check_algorithm(self) -> BaseAlgorithm | None:
        return check_algorithm(self, self.algorithm)

    @property
    def noisy_network(self) -> BasePolicy:
        """The network whose noise explores."""
        raise NotImplementedError

    @property
    def scaled_modules(self) -> tuple[nn.Module, ...]:
        """The modules whose noise `NoiseControl` scales."""
        return (self,)

    def greedy(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Choose the greedy action under a draw of `noisy_network`, or the mean weights: (N, …)."""
        raise NotImplementedError

    def action_values(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Return Q, or the logits, of all discrete actions under a draw or the mean weights.

        Their shape is (N, actions).
        """
        raise NotImplementedError

    def _build_optimizer(self, lr_schedule: Schedule) -> None:
        """Replace the host's optimizer with one that learns σ as well."""
        self.optimizer = self._optimizer_of(self.noisy_network, lr_schedule)
        self._watch_updates()

    def _optimizer_of(
        self,
        network: nn.Module,
        lr_schedule: Schedule,
        parameters: Iterable[nn.Parameter] | None = None,
    ) -> Optimizer:
        return optimizer_of(
            network,
            self.optimizer_class,
            lr_schedule(1),
            self.optimizer_kwargs,
            network.parameters() if parameters is None else parameters,
        )

    def _watch_updates(self) -> None:
        self.optimizer.register_step_post_hook(lambda *_: self._after_update())

    def _after_update(self) -> None:
        raise NotImplementedError

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A copied optimizer has lost its hooks.
        self._watch_updates()

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), **asdict(self._noise)}


def _names_of_sigma(state: Mapping[str, Any]) -> set[str]:
    return {key for key in state if key.endswith("_sigma")}


class NoisyNetwork(NoisyModel):
    """A noisy network of the host, which can act and be saved by itself, as a policy can.

    It is the base of the noisy networks, and comes before the host's network among the bases.
    """

    def __init__(
        self,
        *arguments: Any,
        noise: NoiseName,
        sigma0: float | None,
        noise_in: str,
        learned: bool,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._noise = NoiseOptions(noise=noise, sigma0=sigma0, noise_in=noise_in, learned=learned)
        add_noise(self, self._noise, policy=type(self).__name__)

    def _as_learned(self, forward: Callable[..., Any], *arguments: Any) -> Any:
        """Run a forward for the host's loss: under noise if σ is learned, else by the means."""
        if self._noise.learned:
            return forward(*arguments)
        with mean_weights(self):
            return forward(*arguments)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), **asdict(self._noise)}


def made_noisy(
    network: Any, kind: type[NoisyNetwork], options: NoiseOptions, *, policy: str
) -> Any:
    """Make a network of the host noisy in place, and give it a noisy class."""
    add_noise(network, options, policy=policy)
    network._noise = options
    network.__class__ = _noisy_kind(kind, type(network))
    return network


@functools.cache
def _noisy_kind(noisy: type[NoisyNetwork], host: type[BasePolicy]) -> type[BasePolicy]:
    """Return the noisy class for a class of the host, or for a user's subclass of one."""
    return noisy if noisy.__bases__[1] is host else type(noisy.__name__, (noisy, host), {})


def optimizer_of(
    network: nn.Module,
    optimizer_class: type[Optimizer],
    learning_rate: float,
    options: Mapping[str, Any],
    parameters: Iterable[nn.Parameter],
) -> Optimizer:
    """Build the optimizer of μ and σ, without weight decay on σ, which would end exploration.

    Adam is fused, and RMSProp works in blocks, unless `options` say otherwise: σ doubles the number
    of parameters, and several passes over all of them cost more than the arithmetic.
    """
    chosen = dict(options)
    if optimizer_class in (Adam, AdamW) and not {"foreach", "fused"} & chosen.keys():
        chosen["fused"] = True
    if optimizer_class is RMSprop and supports(chosen):
        optimizer_class = BlockedRMSprop
    build: Any = optimizer_class
    optimizer: Optimizer = build(parameters, lr=learning_rate, **chosen)
    sigmas = {id(parameter) for parameter in sigma_parameters(network)}
    for group in list(optimizer.param_groups):
        if group.get("weight_decay"):
            spared: dict[str, Any] = {**group, "weight_decay": 0.0}
            spared["params"] = [one for one in group["params"] if id(one) in sigmas]
            group["params"] = [one for one in group["params"] if id(one) not in sigmas]
            optimizer.add_param_group(spared)
    return optimizer


def uncompiled(module: Any) -> Any:
    """Return the module that `torch.compile` wraps, or the module itself."""
    return getattr(module, "_orig_mod", module)


def draw_for(network: nn.Module, observation: PyTorchObs) -> Draw | None:
    """Draw noise for each row of an observation; return None for a denoised network."""
    return draw(network, rows=batch_size(observation)) if noisy_layers(network) else None


def batch_size(observation: PyTorchObs) -> int:
    """Return the number of rows of an observation, a tensor or a dict of tensors."""
    tensor = next(iter(observation.values())) if isinstance(observation, dict) else observation
    return tensor.shape[0]
