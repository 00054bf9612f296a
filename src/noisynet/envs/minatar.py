"""The five games of MinAtar (Young and Tian 2019, arXiv 1903.03176), played by its own code.

The package is GPL, so it is an extra: `minatar`.
"""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from ..extras import install_command
from .arguments import check_count_and_seed, unknown_id, whole
from .sync import SyncEnvironments
from .vector import UnusableEnvironment

if TYPE_CHECKING:
    from minatar import Environment

LARGEST_SEED = 2**32 - 1
"""The largest seed that numpy's RandomState, which MinAtar draws from, accepts."""

GAMES = {
    f"MinAtar/{name}-{version}": (module, version == "v1")
    for name, module in (
        ("Asterix", "asterix"),
        ("Breakout", "breakout"),
        ("Freeway", "freeway"),
        ("Seaquest", "seaquest"),
        ("SpaceInvaders", "space_invaders"),
    )
    for version in ("v0", "v1")
}
"""The module of each id, and whether it offers only the actions that the game reads."""


@dataclass(frozen=True, kw_only=True)
class MinAtarRules:
    """The rules of a MinAtar game. Raises UnusableEnvironment for values that cannot work.

    The first two defaults are MinAtar's own. Neither it nor its paper's experiments have a time
    limit; only an agent near perfection meets `max_frames`, and its evaluation would otherwise
    never end.
    """

    sticky_actions: float = 0.1
    """Probability, at every frame, that the game repeats the previous action."""
    difficulty_ramping: bool = True
    """Whether Asterix, Seaquest and Space Invaders become harder as a game goes on."""
    max_frames: int = 108_000
    """Frames, which are steps, after which a game is truncated."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.sticky_actions < 1.0:
            raise UnusableEnvironment(
                f"sticky_actions: got {self.sticky_actions!r}, expected 0 up to, not including, 1"
            )
        whole("max_frames", self.max_frames, 1)


class MinAtarEnvironments(SyncEnvironments):
    """N copies of one MinAtar game: uint8 images of 0 and 1, (channels, 10, 10).

    With an id that ends with v1, the actions are those that the game reads; with v0, they are all
    six. The state can be saved.
    """

    def __init__(
        self, environment_id: str, count: int, *, seed: int, rules: MinAtarRules | None = None
    ) -> None:
        if environment_id not in GAMES:
            raise unknown_id(environment_id, GAMES)
        count, seed = check_count_and_seed(count, seed, LARGEST_SEED)
        self.rules = rules or MinAtarRules()
        module, minimal = GAMES[environment_id]
        make = functools.partial(
            _environment(environment_id),
            module,
            sticky_action_prob=self.rules.sticky_actions,
            difficulty_ramping=self.rules.difficulty_ramping,
        )
        self._games = [make() for _ in range(count)]
        one = self._games[0]
        self._actions: list[int] = (
            one.minimal_action_set() if minimal else list(range(one.num_actions()))
        )
        height, width, channels = one.state_shape()
        super().__init__(
            environment_id,
            count,
            seed=seed,
            observation_shape=(channels, height, width),
            observation_dtype=np.dtype(np.uint8),
            action_count=len(self._actions),
            step_limit=self.rules.max_frames,
            can_save_state=True,
        )

    def _begin(self, index: int, seed: int | None) -> object:
        game = self._games[index]
        game.seed(seed)  # None: the generator goes on
        game.reset()
        return game.state().transpose(2, 0, 1)

    def _play(self, index: int, action: int) -> tuple[object, SupportsFloat, object, object]:
        game = self._games[index]
        reward, terminated = game.act(self._actions[action])
        return game.state().transpose(2, 0, 1), reward, terminated, False

    def _end(self, index: int) -> None:
        """Do nothing: MinAtar holds a window at most, and none was opened."""

    def _saved(self, index: int) -> dict[str, Any]:
        game = self._games[index]
        generator = game.random.get_state(legacy=False)
        return {
            "rules": {name: _plain(value) for name, value in sorted(_memory(game).items())},
            "last_action": int(game.last_action),
            "generator": _plain(generator),
        }

    def _restored(self, index: int, saved: dict[str, Any]) -> None:
        game = self._games[index]
        memory = {name: _numpy(value) for name, value in saved["rules"].items()}
        if memory.keys() != _memory(game).keys():
            raise UnusableEnvironment(
                f"{self.id}: state: got {sorted(memory)}, expected {sorted(_memory(game))}"
            )
        game.seed(0)  # the game's own generator and that of sticky actions are one object
        vars(game.env).update(memory)
        game.last_action = saved["last_action"]
        game.random.set_state(_numpy(saved["generator"]))


def _environment(needed_by: str) -> "type[Environment]":
    try:
        from minatar import Environment
    except ImportError as error:
        raise UnusableEnvironment(
            f"{needed_by} needs MinAtar: {install_command('minatar')}"
        ) from error
    return Environment


def _memory(game: "Environment") -> dict[str, Any]:
    """Return a game's state: its attributes, except its rules and its generator."""
    fixed = ("action_map", "channels", "random", "ramping")
    return {name: value for name, value in vars(game.env).items() if name not in fixed}


def _plain(value: Any) -> Any:
    """Return a value in JSON's types: numbers, lists, and {"array", "type"} for an array."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "type": value.dtype.str}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value


def _numpy(value: Any) -> Any:
    """Return the value that `_plain` was given, except that numpy's scalars are Python's now."""
    if isinstance(value, dict) and value.keys() == {"array", "type"}:
        return np.array(value["array"], dtype=value["type"])
    if isinstance(value, list):
        return [_numpy(one) for one in value]
    if isinstance(value, dict):
        return {name: _numpy(one) for name, one in value.items()}
    return value
