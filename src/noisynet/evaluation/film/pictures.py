"""Games for films: played as in the run, with a picture of every state.

The agent's observations come from an environment that is built as in the run, with the same
preprocessing. Atari's vector environment cannot be rendered: a twin of it, with the same seed and
the same actions, shows the whole screen in colour.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...assemble import make_environments
from ...envs import (
    AtariEnvironments,
    ChainEnvironments,
    DeepSeaEnvironments,
    Environments,
    GymnasiumEnvironments,
    Step,
    UnusableEnvironment,
    make,
)
from ...envs.raised import raised
from ...envs.toy import toy_of
from ...runs.config import Config

Picture = npt.NDArray[np.uint8]
"""(height, width, 3)."""

_GROUND = (24, 26, 32)
# Okabe and Ito's colours, which colour-blind people can tell apart, too.
_COLOURS = np.array(
    [
        (86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (0, 114, 178),
        (213, 94, 0), (204, 121, 167), (220, 220, 220), (150, 150, 150), (120, 94, 240),
    ],
    np.uint8,
)  # fmt: skip


class Game(ABC):
    """One environment, and pictures of it."""

    steps_per_second: float
    """Agent steps in a second of film."""
    action_names: list[str]

    def __init__(self, environments: Environments) -> None:
        self.environments = environments
        self.action_names = [str(action) for action in range(environments.action_count)]

    def reset(self) -> npt.NDArray[Any]:
        """Start the game; return the first observation (1, *shape)."""
        return self.environments.reset()

    def step(self, action: int) -> Step:
        """Take one action."""
        return self.environments.step(np.array([action]))

    @abstractmethod
    def picture(self, observation: npt.NDArray[Any]) -> Picture:
        """Draw the current state of the game, whose observation (1, *shape) is given."""

    def close(self) -> None:
        """Close the environments."""
        self.environments.close()


def make_game(config: Config, seed: int) -> Game:
    """Make the game of a run, seeded; raises UnusableEnvironment if it cannot be made or drawn.

    A game that cannot render itself is shown as the agent observes it.
    """
    name = config.environment.environment
    if config.environment.is_atari:
        return AtariGame(config, seed)
    if not config.environment.is_minatar and ":" not in name and toy_of(name) is None:
        drawn = _drawn_by_gymnasium(name, seed)
        if drawn is not None:
            return drawn
    made = make_environments(config, count=1, seed=seed)
    drawn = made.rendering if isinstance(made, GymnasiumEnvironments) else None
    return ObservedGame(made) if drawn is None else GymnasiumGame(made, drawn)


class AtariGame(Game):
    """An Atari game, with a twin that shows the whole screen."""

    def __init__(self, config: Config, seed: int) -> None:
        own = make_environments(config, count=1, seed=seed)
        with ExitStack() as unfinished:
            unfinished.callback(own.close)
            super().__init__(own)
            assert isinstance(own, AtariEnvironments)
            section = config.environment
            # All settings that the game depends on are the run's; only the picture differs.
            shown = replace(own.preprocessing, height=210, width=160, grayscale=False, stack=1)
            self._twin = make(own.id, 1, seed=seed, atari=shown)
            unfinished.callback(self._twin.close)
            self._screen: npt.NDArray[Any] | None = None
            self.steps_per_second = 60 / section.frame_skip
            self.action_names = _atari_actions(own.id, section.full_action_space)
            unfinished.pop_all()

    def reset(self) -> npt.NDArray[Any]:
        """Start both; return the first observation (1, *shape)."""
        self._screen = self._twin.reset()
        return super().reset()

    def step(self, action: int) -> Step:
        """Take one action in both; raises UnusableEnvironment if their results differ."""
        step, shown = super().step(action), self._twin.step(np.array([action]))
        if any(
            getattr(step, field)[0] != getattr(shown, field)[0]
            for field in ("reward", "terminated", "truncated", "first", "ended")
        ):
            raise UnusableEnvironment(
                f"{self.environments.id}: the game that is shown is not the one that is played; "
                "this ale-py is not the one known here"
            )
        self._screen = shown.observation
        return step

    def picture(self, observation: npt.NDArray[Any]) -> Picture:
        """Return the screen."""
        del observation
        assert self._screen is not None, "the caller resets first"
        return self._screen[0, -1]

    def close(self) -> None:
        """Close both."""
        super().close()
        self._twin.close()


class GymnasiumGame(Game):
    """A game of Gymnasium that renders itself."""

    def __init__(self, environments: Environments, drawn: Any) -> None:
        super().__init__(environments)
        self._drawn = drawn
        rate = drawn.metadata.get("render_fps")
        known = isinstance(rate, int | float) and 0 < rate < math.inf
        self.steps_per_second = float(rate) if known else 30.0

    def picture(self, observation: npt.NDArray[Any]) -> Picture:
        """Return what the environment renders; raises UnusableEnvironment if that is no picture."""
        del observation
        try:
            with _no_screen():
                seen = self._drawn.render()
        except Exception as error:
            raise UnusableEnvironment(
                f"{self.environments.id}: cannot be drawn: {raised(error)}"
            ) from error
        array = isinstance(seen, np.ndarray)
        if not array or seen.ndim != 3 or seen.shape[2] != 3 or seen.dtype.kind not in "iu":
            got = f"{seen.dtype} of shape {seen.shape}" if array else type(seen).__name__
            raise UnusableEnvironment(
                f"{self.environments.id}: render: got {got}, expected whole numbers of shape "
                "(height, width, 3)"
            )
        return np.asarray(seen, np.uint8)


class ObservedGame(Game):
    """A game that is shown as the agent observes it."""

    def __init__(self, environments: Environments) -> None:
        super().__init__(environments)
        toy = isinstance(environments, ChainEnvironments | DeepSeaEnvironments)
        self.steps_per_second = 5.0 if toy else 12.0

    def picture(self, observation: npt.NDArray[Any]) -> Picture:
        """Draw the observation: the position in a toy, an image, or a vector as bars."""
        seen = observation[0]
        if isinstance(self.environments, ChainEnvironments):
            place = np.zeros((1, self.environments.size))
            place[0, int(seen.sum()) - 1] = 1
            return _cells(place[None])
        if isinstance(self.environments, DeepSeaEnvironments):
            size = self.environments.size
            return _cells(seen.reshape(1, size, size))
        return _image(seen) if seen.ndim == 3 else _bars(seen)


def _drawn_by_gymnasium(name: str, seed: int) -> Game | None:
    """Make a registered environment that renders; None if it cannot render."""
    import gymnasium

    spec = gymnasium.registry.get(name)
    if spec is None:
        return None
    options: dict[str, Any] = {"max_episode_steps": -1, "disable_env_checker": True}
    try:
        plain = gymnasium.make(name, **options)
        try:
            can = "rgb_array" in plain.metadata.get("render_modes", [])
        finally:
            plain.close()
        if not can:
            return None
        with _no_screen():
            drawn = gymnasium.make(name, render_mode="rgb_array", **options)
    except Exception as error:
        raise UnusableEnvironment(f"{name}: cannot be made: {raised(error)}") from error
    try:
        own = GymnasiumEnvironments(name, [drawn], seed=seed, step_limit=spec.max_episode_steps)
        return GymnasiumGame(own, drawn)
    except BaseException:
        drawn.close()
        raise


@contextmanager
def _no_screen() -> Iterator[None]:
    """Keep pygame, with which classic control renders, from looking for a screen."""
    if "SDL_VIDEODRIVER" in os.environ:
        yield
        return
    os.environ["SDL_VIDEODRIVER"] = "dummy"
    try:
        yield
    finally:
        del os.environ["SDL_VIDEODRIVER"]


def _atari_actions(name: str, full: bool) -> list[str]:
    import gymnasium

    one = gymnasium.make(name, full_action_space=full, disable_env_checker=True)
    try:
        inside: Any = one.unwrapped
        return [str(action) for action in inside.get_action_meanings()]
    finally:
        one.close()


def _cells(channels: npt.NDArray[Any]) -> Picture:
    """Draw channels (C, H, W) as a grid, one colour each, later ones over earlier ones."""
    _, height, width = channels.shape
    small = np.full((height, width, 3), _GROUND, np.uint8)
    for index, channel in enumerate(channels):
        small[channel > 0] = _COLOURS[index % len(_COLOURS)]
    scale = max(400 // max(height, width), 2)
    large = small.repeat(scale, axis=0).repeat(scale, axis=1)
    if scale >= 6:
        large[::scale] = large[:, ::scale] = (44, 47, 56)
    return large


def _image(seen: npt.NDArray[Any]) -> Picture:
    """Draw an image (C, H, W): as it is if it has 1 or 3 channels of brightness, else as a grid."""
    if seen.dtype != np.uint8 and seen.min() >= 0 and seen.max() <= 1:
        seen = (seen * 255).round().astype(np.uint8)
    if seen.dtype == np.uint8 and seen.shape[0] in (1, 3) and int(seen.max()) > 1:
        return np.broadcast_to(seen.transpose(1, 2, 0), (*seen.shape[1:], 3)).copy()
    return _cells(seen)


def _bars(seen: npt.NDArray[Any], height: int = 300, width: int = 400) -> Picture:
    """Draw a vector as bars from a middle line, on a scale that fits any number."""
    shown = np.full((height, width, 3), _GROUND, np.uint8)
    middle = height // 2
    shown[middle] = (90, 94, 104)
    room = width / len(seen)
    for index, value in enumerate(seen.astype(np.float64)):
        end = middle - round(middle * 0.95 * value / (1 + abs(value)))
        left, right = round(index * room), max(round((index + 0.8) * room), round(index * room) + 1)
        shown[min(end, middle) : max(end, middle) + 1, left:right] = _COLOURS[0]
    return shown
