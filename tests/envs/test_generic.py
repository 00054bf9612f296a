"""Gymnasium environments of any kind: spaces, images, failures in mid-run, the user's own."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium import spaces

from noisynet.envs import (
    ChainEnvironments,
    EnvironmentFailed,
    Environments,
    GymnasiumEnvironments,
    UnusableEnvironment,
    being_imported,
    imported_function,
    make,
)
from noisynet.envs.arguments import nearest_names
from noisynet.envs.generic import observation_kind


class Scripted(gymnasium.Env[Any, Any]):
    """Returns what its class says; fails at the third step of the second environment."""

    observation_space = spaces.Box(-9.0, 9.0, (2,), np.float32)
    action_space = spaces.Discrete(2)
    seen: ClassVar[Any] = np.zeros(2, np.float32)
    made: ClassVar[list["Scripted"]] = []

    def __init__(self) -> None:
        self.made.append(self)
        self.number = len(self.made) - 1
        self.steps = 0
        self.closed = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.seen, {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        usual = self.seen, 1.0, False, False, {}
        return self.third() if self.steps == 3 and self.number == 1 else usual

    def third(self) -> Any:
        return self.seen, 1.0, True, False, {}

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    Scripted.made.clear()
    known = set(gymnasium.registry)
    yield
    for name in set(gymnasium.registry) - known:
        # ale-py registers its games once in a process.
        if not str(gymnasium.registry[name].entry_point).startswith("ale_py."):
            del gymnasium.registry[name]


def scripted(count: int = 2, limit: int | None = None, **fields: Any) -> Environments:
    """Register and make environments whose class has these attributes."""
    made = type("Made", (Scripted,), fields)
    gymnasium.register("Scripted-v0", entry_point=made, max_episode_steps=limit)
    return make("Scripted-v0", count, seed=0)


# Spaces


def kind(low: float, high: float, shape: tuple[int, ...], dtype: Any) -> tuple[Any, ...]:
    one = observation_kind("X-v0", spaces.Box(low, high, shape, dtype))
    return one.shape, one.dtype, one.channels_last


@pytest.mark.parametrize(("box", "expected"), [
    ((-1, 1, (5,), np.float64), ((5,), np.float32, False)),
    ((0, 255, (128,), np.uint8), ((128,), np.float32, False)),
    ((0, 255, (96, 96, 3), np.uint8), ((3, 96, 96), np.uint8, True)),
    ((0, 255, (4, 84, 84), np.uint8), ((4, 84, 84), np.uint8, False)),
    ((0, 255, (84, 84), np.uint8), ((1, 84, 84), np.uint8, False)),
    ((0, 255, (12, 84, 3), np.uint8), ((3, 12, 84), np.float32, True)),
    ((0, 9, (12, 12, 3), np.uint8), ((3, 12, 12), np.uint8, True)),
    ((0, 1, (10, 10, 10), np.bool_), ((10, 10, 10), np.float32, True)),
    ((0, 1, (64, 48, 1), np.float64), ((1, 64, 48), np.float32, True)),
])  # fmt: skip
def test_vectors_and_images_are_taken(box: Any, expected: tuple[Any, ...]) -> None:
    assert kind(*box) == expected


IMAGE = spaces.Box(0, 255, (7, 7, 3), np.uint8)
WIDE = spaces.Box(*np.arange(180.0).reshape(2, 90), (90,), np.float64)


@pytest.mark.parametrize("space", [
    spaces.Text(5), spaces.Box(0, 1, (0,)), spaces.Box(0, 1, (2, 2, 2, 2)), spaces.Dict(),
    spaces.Dict({"image": IMAGE}), spaces.Tuple([spaces.Discrete(2), spaces.Text(5)]),
    spaces.Dict({"grey": spaces.Box(0, 255, (7, 7), np.uint8)}),
    spaces.Sequence(spaces.Discrete(2)), spaces.Dict({"wide": WIDE, "text": spaces.Text(9)}), None,
])  # fmt: skip
def test_other_observations_are_refused_on_one_line(space: Any) -> None:
    with pytest.raises(UnusableEnvironment) as refusal:
        scripted(observation_space=space)
    said = str(refusal.value)
    shown = " ".join(str(space).split())[:150]
    assert said.startswith(f"Scripted-v0: observation space: got {shown}")
    assert "expected a Box of one dimension (a vector) or of three (an image)" in said
    assert "\n" not in said
    assert "gymnasium.wrappers.FlattenObservation" in said
    assert len(said) < 600
    assert all(environment.closed for environment in Scripted.made)


@pytest.mark.parametrize(("space", "seen", "expected"), [
    (spaces.Discrete(4), 2, [0, 0, 1, 0]),
    (spaces.Discrete(3, start=5), np.int64(7), [0, 0, 1]),
    (spaces.MultiDiscrete([2, 3]), [1, 0], [0, 1, 1, 0, 0]),
    (spaces.MultiBinary(3), [1, 0, 1], [1, 0, 1]),
    (spaces.Box(0, 1, ()), 0.5, [0.5]),
    (spaces.Box(0, 9, (2, 2)), [[1, 2], [3, 4]], [1, 2, 3, 4]),
    (spaces.Tuple([spaces.Box(0, 9, (2,)), spaces.Discrete(2)]), ([3, 4], 1), [3, 4, 0, 1]),
    (spaces.Dict(a=spaces.Discrete(2), b=spaces.Dict(c=spaces.Box(0, 9, (1,)))),
     {"b": {"c": [5]}, "a": 0, "more": 1}, [1, 0, 5]),
])  # fmt: skip
def test_numbers_become_a_vector(space: Any, seen: Any, expected: list[float]) -> None:
    seen = np.array(seen) if isinstance(seen, list) else seen
    environments = scripted(observation_space=space, seen=seen)
    assert environments.observation_shape == (len(expected),)
    assert environments.observation_dtype == np.float32
    first = environments.reset()
    assert first.dtype == np.float32
    assert first.tolist() == [expected] * 2
    assert environments.step([0, 1]).observation.tolist() == [expected] * 2


def test_an_observation_outside_its_space_is_named() -> None:
    space = spaces.Dict(a=spaces.Discrete(2), b=spaces.Discrete(2))
    for seen, message in (({"a": 1}, "KeyError: 'b'"), ({"a": 1, "b": 9}, "IndexError")):
        with pytest.raises(EnvironmentFailed, match=f"reset raised {message}"):
            scripted(observation_space=space, seen=seen).reset()
        del gymnasium.registry["Scripted-v0"]


def test_an_image_of_bytes_has_no_place_for_nan() -> None:
    space = spaces.Box(0, 255, (40, 40, 3), np.uint8)
    environments = scripted(observation_space=space, seen=np.full(space.shape, np.nan))
    with pytest.raises(EnvironmentFailed, match="reset: observation: got nan, expected finite"):
        environments.reset()


def test_games_of_gymnasium_with_numbers_are_played() -> None:
    for name, size in (("FrozenLake-v1", 16), ("Blackjack-v1", 32 + 11 + 2)):
        environments = make(name, 2, seed=0)
        assert environments.reset().shape == (2, size)
        assert environments.step([0, 1]).observation.shape == (2, size)
        environments.close()


@pytest.mark.parametrize("space", [
    spaces.Box(-1, 1, (1,)), spaces.MultiDiscrete([2, 2]), spaces.MultiBinary(2),
    spaces.Dict({"a": spaces.Discrete(2)}), None,
])  # fmt: skip
def test_other_actions_are_refused(space: Any) -> None:
    expected = f"Scripted-v0: action space: got {space}, expected Discrete"
    with pytest.raises(UnusableEnvironment, match=f"^{re.escape(expected)}$"):
        scripted(action_space=space)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.bool_])
def test_images_reach_the_agent_with_their_channels_in_front(dtype: type[Any]) -> None:
    image = np.random.default_rng(0).integers(2, size=(5, 4, 3)).astype(dtype)
    space = spaces.Box(0, 1, image.shape, dtype)
    environments = scripted(observation_space=space, seen=image)
    first = environments.reset()
    assert environments.stack == 1
    assert first.shape == (2, *environments.observation_shape) == (2, 3, 5, 4)
    assert (
        first.dtype
        == environments.observation_dtype
        == (np.uint8 if dtype is np.uint8 else np.float32)
    )
    assert np.array_equal(first[1], image.transpose(2, 0, 1))
    assert np.array_equal(environments.step([0, 1]).observation, first)


def test_a_grey_image_gets_one_channel() -> None:
    image = np.arange(40 * 36, dtype=np.uint16).astype(np.uint8).reshape(40, 36)
    grey = scripted(observation_space=spaces.Box(0, 255, image.shape, np.uint8), seen=image)
    assert np.array_equal(grey.reset()[0], image[None])


def test_a_small_picture_becomes_brightness_and_symbols_stay_numbers() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for most, expected in ((255, image / np.float32(255)), (11, image)):
        space = spaces.Box(0, most, image.shape, np.uint8)
        seen = scripted(observation_space=space, seen=image).reset()[0]
        assert np.array_equal(seen, expected[None])
        del gymnasium.registry["Scripted-v0"]


def test_a_wrapper_may_remember_anything_so_its_state_is_not_saved() -> None:
    def wrapped() -> Any:
        return gymnasium.wrappers.NormalizeObservation(gymnasium.make("CartPole-v1"))

    bare = GymnasiumEnvironments("x", [gymnasium.make("CartPole-v1").unwrapped], seed=0)
    assert bare.can_save_state
    for environment in (wrapped(), gymnasium.make("CartPole-v1")):  # the latter has a time limit
        assert not GymnasiumEnvironments("x", [environment], seed=0).can_save_state


# Failures in mid-run


def boom(self: Any) -> Any:
    raise ZeroDivisionError("by zero\nand more")


BAD_STEPS = {
    "step raised ZeroDivisionError: by zero": boom,
    "reward: got nan, expected finite numbers": lambda self: (self.seen, np.nan, False, False, {}),
    "reward: got inf, expected finite": lambda self: (self.seen, 1e300, False, False, {}),
    "observation: got nan at [1], expected": lambda self: ([0.0, np.nan], 0.0, False, False, {}),
    "observation: got -inf at [0], expected": lambda self: ([-1e300, 1], 0.0, False, False, {}),
    "step: observation: got shape (1,), its own space says (2,)": lambda self: (
        [1.0], 0.0, False, False, {},
    ),
    "step: returned 4 values, expected observation, reward, terminated, truncated, info": (
        lambda self: (self.seen, 0.0, True, {})
    ),
    "step: returned ndarray, expected observation, reward": lambda self: self.seen,
    "step: reward: got NoneType, expected one number": lambda self: (
        self.seen, None, False, False, {},
    ),
    "step: reward: got shape (1,), expected one number": lambda self: (
        self.seen, np.ones(1), False, False, {},
    ),
    "step: truncated: got shape (2,), expected true or false": lambda self: (
        self.seen, 0.0, False, np.zeros(2), {},
    ),
    "step raised ValueError: could not convert": lambda self: ("ab", 0.0, False, False, {}),
    "step raised ValueError: setting an array": lambda self: ([[1], [1, 2]], 0.0, True, False, {}),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD_STEPS)
def test_a_failure_in_mid_run_says_where_and_what(message: str) -> None:
    environments = scripted(third=BAD_STEPS[message])
    environments.reset()
    for _ in range(2):
        assert environments.step([0, 0]).reward.tolist() == [1.0, 1.0]
    with pytest.raises(EnvironmentFailed) as failure:
        environments.step([0, 0])
    said = str(failure.value)
    assert said.startswith(f"Scripted-v0: environment 1 of 2 failed: {message}")
    assert "\n" not in said
    assert isinstance(failure.value, UnusableEnvironment)
    if "raised" in message:
        assert type(failure.value.__cause__).__name__ in said
    # It neither goes on as if nothing had happened, nor is it lost for ever.
    with pytest.raises(UnusableEnvironment, match="after a failure, expected reset"):
        environments.step([0, 0])
    environments.reset()
    assert environments.step([0, 0]).reward.tolist() == [1.0, 1.0]


def test_a_reset_can_fail_too_at_first_and_in_mid_run() -> None:
    def reset(self: Any, **_: Any) -> Any:
        self.resets = getattr(self, "resets", 0) + 1
        if self.resets == wanted:
            raise OSError("the game is gone")
        self.steps = 0
        return self.seen, {}

    failed = "environment 0 of 1 failed: reset raised OSError: the game is gone"
    wanted = 1
    with pytest.raises(EnvironmentFailed, match=failed):
        scripted(count=1, reset=reset).reset()
    del gymnasium.registry["Scripted-v0"]
    wanted = 2
    environments = scripted(count=1, limit=2, reset=reset)
    environments.reset()
    assert [bool(environments.step([0]).ended[0]) for _ in range(2)] == [False, True]
    with pytest.raises(EnvironmentFailed, match=failed):
        environments.step([0])


def test_the_first_reset_is_checked_as_well() -> None:
    for seen, message in ((np.full(2, np.nan), "got nan at"), (np.zeros(3), "got shape")):
        with pytest.raises(EnvironmentFailed, match=f"failed: .*observation: {message}"):
            scripted(seen=seen).reset()
        del gymnasium.registry["Scripted-v0"]


def test_a_reset_of_gym_s_former_kind_is_told_what_it_returns() -> None:
    environments = scripted(count=1, reset=lambda self, **_: self.seen)
    with pytest.raises(EnvironmentFailed, match="reset: returned ndarray, expected observation, "):
        environments.reset()


def test_games_that_failed_are_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    pole = make("CartPole-v1", 2, seed=0)
    pole.reset()
    good = pole.state()
    with monkeypatch.context() as patched:
        patched.setattr("gymnasium.envs.classic_control.CartPoleEnv.step", boom, raising=True)
        with pytest.raises(EnvironmentFailed, match="step raised TypeError"):
            pole.step([0, 1])
    assert not pole.can_save_state
    with pytest.raises(UnusableEnvironment, match="cannot be saved"):
        pole.state()
    pole.restore(good)
    assert pole.can_save_state
    assert pole.state() == good
    pole.step([0, 1])


def test_actions_are_numbers_of_numpy_as_in_gymnasium_s_own_vectors() -> None:
    """An environment may ask an action for its `item()` or `dtype`."""
    taken: list[Any] = []

    class Item(gymnasium.Env[Any, Any]):
        observation_space = spaces.Box(-1, 1, (2,), np.float32)
        action_space = spaces.Discrete(2, start=3)

        def reset(self, **_: Any) -> Any:
            return np.zeros(2, np.float32), {}

        def step(self, action: Any) -> Any:
            taken.append(action)
            return np.zeros(2, np.float32), float(action.item()), False, False, {}

    environments = GymnasiumEnvironments("Item", [Item()], seed=0)
    environments.reset()
    assert environments.step(np.array([1])).reward.tolist() == [4.0]
    assert type(taken[0]) is np.int64


def test_an_interrupt_is_no_failure_of_the_environment() -> None:
    def interrupt(self: Any) -> Any:
        raise KeyboardInterrupt

    environments = scripted(third=interrupt)
    environments.reset()
    environments.step([0, 0])
    environments.step([0, 0])
    with pytest.raises(KeyboardInterrupt):
        environments.step([0, 0])


def test_an_atari_game_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ale_py")
    pong = make("ALE/Pong-v5", 1, seed=0)
    pong.reset()
    monkeypatch.setattr(pong._open(), "step", boom)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(EnvironmentFailed, match="ALE/Pong-v5: step raised") as failure:
        pong.step([0])
    assert failure.value.__cause__ is not None


# What cannot be made


def test_a_constructor_that_fails_is_one_line_and_what_was_made_is_closed() -> None:
    def init(self: Any) -> None:
        if len(Scripted.made) == 2:
            raise RuntimeError("no display\nhint: xvfb")
        Scripted.__init__(self)

    with pytest.raises(UnusableEnvironment, match=r"^Scripted-v0: .* made: .*no display \(.*\)$"):
        scripted(count=3, __init__=init)
    assert [environment.closed for environment in Scripted.made] == [True, True]


def test_copies_with_different_spaces_are_refused() -> None:
    one, other = Scripted(), Scripted()
    other.action_space = spaces.Discrete(3)
    with pytest.raises(UnusableEnvironment, match="x: its copies have different spaces"):
        GymnasiumEnvironments("x", [one, other], seed=0)
    assert one.closed
    assert other.closed


# The user's own

MODULE = """
import gymnasium, numpy as np
from noisynet.envs import ChainEnvironments

def pole(): return gymnasium.make("CartPole-v1", max_episode_steps=7)
class Own(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 1), {}
    def step(self, action): return np.zeros(1), 1.0, False, False, {}
class Bare(gymnasium.Env): pass
def chain(count, seed): return ChainEnvironments(6, count, seed=seed)
def few(count, seed): return ChainEnvironments(6, 1, seed=seed)
def wrong(): return 3
def wrong_vector(count, seed): return Own()
one = Own()
def same(): return one
def needs(size): return Own()
def fails(): raise KeyError("speed")
number = 3
gymnasium.register("Own-v0", entry_point=Own, max_episode_steps=4)
"""


@pytest.fixture
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in a folder with modules that Python does not find by itself, as of a console script."""
    (tmp_path / "my_games.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("import my_missing_dependency")
    (tmp_path / "my_worse.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    yield
    for name in ("my_games", "my_broken", "my_worse"):
        sys.modules.pop(name, None)


def ends(environments: Environments, steps: int) -> list[int]:
    environments.reset()
    return [n for n in range(steps) if environments.step([1] * environments.count).ended.any()]


@pytest.mark.usefixtures("_own")
def test_a_function_makes_each_environment_and_they_are_seeded_here() -> None:
    own = make("my_games:Own", 3, seed=5)
    assert (own.id, own.count, own.can_save_state) == ("my_games:Own", 3, False)
    first = own.reset()
    assert len(np.unique(first)) == 3
    assert np.array_equal(first[1:], make("my_games:Own", 2, seed=6).reset())
    assert ends(own, 30) == []


@pytest.mark.usefixtures("_own")
def test_a_module_is_being_imported_in_its_own_thread_alone(tmp_path: Path) -> None:
    (tmp_path / "my_slow.py").write_text(
        "import noisynet.envs, threading\n"
        "within = noisynet.envs.being_imported()\n"
        "other = []\n"
        "look = threading.Thread(target=lambda: other.append(noisynet.envs.being_imported()))\n"
        "look.start(); look.join()\n"
        "def game(): return (within, other)\n"
    )
    assert imported_function("my_slow:game")() == ("my_slow:game", [None])
    assert being_imported() is None
    sys.modules.pop("my_slow")


@pytest.mark.usefixtures("_own")
def test_a_time_limit_of_the_users_truncates() -> None:
    pole = make("my_games:pole", 1, seed=0)
    assert not pole.can_save_state  # how far the limit is, Gymnasium keeps to itself
    pole.reset()
    alternate: list[npt.NDArray[np.bool_]] = [pole.step([n % 2]).truncated for n in range(16)]
    assert np.flatnonzero(alternate).tolist() == [6, 14]


@pytest.mark.usefixtures("_own")
def test_a_module_registers_its_own_ids() -> None:
    own = make("my_games:Own-v0", 2, seed=0)
    assert own.id == "my_games:Own-v0"
    assert ends(own, 12) == [3, 8]


@pytest.mark.usefixtures("_own")
def test_a_function_of_count_and_seed_makes_all_at_once() -> None:
    chain = make("my_games:chain", 4, seed=0)
    assert isinstance(chain, ChainEnvironments)
    assert chain.count == 4


@pytest.mark.usefixtures("_own")
@pytest.mark.parametrize(("place", "message"), [
    ("my_gamse:pole", "there is no module 'my_gamse'"),
    ("my_games.inner:pole", "there is no module 'my_games.inner'"),
    ("my_games:poel", "my_games has no function 'poel'; nearest: pole"),
    ("my_games:zzzzzz", "my_games has no function 'zzzzzz'$"),
    ("my_games:Own-v9", "my_games has no function 'Own-v9'"),
    ("my_games:number", "number is of type int, expected a function"),
    ("my_games:wrong", "returned int, expected a gymnasium.Env"),
    ("my_games:wrong_vector", "returned Own, expected noisynet.envs.Environments"),
    ("my_games:few", "got 1 environments, expected 2"),
    ("my_games:same", "returned the same environment twice"),
    ("my_games:needs", "cannot be made: TypeError: needs.* missing 1 required .* 'size'"),
    ("my_games:fails", "cannot be made: KeyError: 'speed'"),
    ("my_games:Bare", "observation space: got None, expected a Box"),
    ("my_broken:f", "importing my_broken raised ModuleNotFoundError: .*my_missing_dependency"),
    ("my_worse:f", "importing my_worse raised ZeroDivisionError"),
])  # fmt: skip
def test_what_does_not_fit_is_said_on_one_line(place: str, message: str) -> None:
    with pytest.raises(UnusableEnvironment, match=f"^{re.escape(place)}: ({message})") as refusal:
        make(place, 2, seed=0)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("place", ["my_games:", ":f", "a b:f", "..x:f", "/tmp/x.py:f"])
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(UnusableEnvironment, match=f"got {place!r}, expected module:function"):
        make(place, 1, seed=0)


def test_nearest_names_are_named_once() -> None:
    """Atari's ids are registered ones, and games that could be, too."""
    known = ["ALE/Pong-v5", "ALE/Pooyan-v5", "CartPole-v1", "ALE/Pong-v5", "ALE/Pooyan-v5"]
    assert nearest_names("PongNoFrameskip-v4", known) == ["ALE/Pong-v5", "ALE/Pooyan-v5"]
