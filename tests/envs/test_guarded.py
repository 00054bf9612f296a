"""A user's own vector environments: the same trajectory, and each fault of theirs by name."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from noisynet.envs import (
    ChainEnvironments,
    EnvironmentFailed,
    Environments,
    Step,
    UnusableEnvironment,
    calls,
    make,
    unanswered,
)
from noisynet.envs.guarded import GuardedEnvironments
from noisynet.networks import build_q_network

NAME = "tests_of_guarded:corridor"


class Corridor(ChainEnvironments):
    """A user's own class, whose every method can be made to misbehave."""

    def __init__(self, count: int, seed: int) -> None:
        super().__init__(6, count, seed=seed)
        self.instead: dict[str, Callable[[], Any]] = {}

    def reset(self) -> npt.NDArray[Any]:
        """Reset, or do the other thing."""
        return self.instead.get("reset", super().reset)()

    def step(self, actions: npt.ArrayLike) -> Step:
        """Step, or do the other thing."""
        return self.instead["step"]() if "step" in self.instead else super().step(actions)

    def close(self) -> None:
        """Close, or do the other thing."""
        self.instead.get("close", super().close)()


class Unfinished(Environments):
    """Environments without the attributes that they promise."""

    def reset(self) -> npt.NDArray[Any]:
        """Not reached."""
        raise NotImplementedError

    def step(self, actions: npt.ArrayLike) -> Step:
        """Not reached."""
        raise NotImplementedError

    def close(self) -> None:
        """Free nothing."""


def exits() -> Any:
    raise SystemExit(7)


def breaks() -> Any:
    raise KeyError("speed")


def guarded(**instead: Callable[[], Any]) -> GuardedEnvironments:
    inside = Corridor(3, 0)
    inside.instead = instead
    return GuardedEnvironments(NAME, inside)


def altered(**fields: Any) -> Step:
    plain = ChainEnvironments(6, 3, seed=0)
    plain.reset()
    step = plain.step([0, 0, 0])
    for name, value in fields.items():
        object.__setattr__(step, name, value)
    return step


@pytest.fixture
def _module(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "own_vectors.py").write_text(
        "from noisynet.envs import ChainEnvironments\n"
        f"from {__name__} import Corridor, Unfinished\n"
        "class Slow(ChainEnvironments): pass\n"
        "def slow(count, seed): return Slow(6, count, seed=seed)\n"
        "def ours(count, seed): return ChainEnvironments(6, count, seed=seed)\n"
        "def unfinished(count, seed): return Unfinished()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("_module")
def test_make_guards_the_users_own_kinds_alone() -> None:
    own = make("own_vectors:slow", 2, seed=0)
    assert isinstance(own, GuardedEnvironments)
    assert (own.id, own.count, own.inside.id) == ("own_vectors:slow", 2, "Chain-6")
    assert isinstance(make("own_vectors:ours", 2, seed=0), ChainEnvironments)
    with pytest.raises(UnusableEnvironment, match=r"^own_vectors:unfinished: .*attribute 'count'"):
        make("own_vectors:unfinished", 2, seed=0)


def test_the_trajectory_and_the_saved_state_are_those_inside() -> None:
    plain, own = ChainEnvironments(6, 3, seed=0), guarded()
    assert np.array_equal(plain.reset(), own.reset())
    other = own.step([1, 0, 1])
    plain.step([1, 0, 1])
    for number in range(40):
        actions = [number % 2, 1, (number // 2) % 2]
        one, other = plain.step(actions), own.step(actions)
        for name in Step.__slots__:
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert own.can_save_state
    again = guarded()
    assert np.array_equal(again.restore(own.state()), other.observation)
    assert np.array_equal(again.step([1, 1, 1]).observation, own.step([1, 1, 1]).observation)


@pytest.mark.parametrize(
    ("method", "does", "said"),
    [
        ("reset", exits, "reset raised SystemExit: 7"),
        ("reset", lambda: np.zeros((3, 2)), r"reset: observation: got shape \(3, 2\), expected"),
        ("reset", lambda: np.zeros((3, 6)), "reset: observation: got float64, expected float32"),
        ("step", exits, "step raised SystemExit: 7"),
        ("step", breaks, "step raised KeyError: 'speed'"),
        ("step", lambda: (1, 2), "step: returned tuple, expected noisynet.envs.Step"),
        (
            "step",
            lambda: altered(reward=np.array([0, np.nan, 0], np.float32)),
            "step: reward: got nan, expected finite numbers",
        ),
        ("step", lambda: altered(ended=[False]), "step: ended: got list, expected an array of"),
        ("step", lambda: altered(first=np.zeros(2, bool)), r"step: first: got shape \(2,\), "),
        ("step", lambda: altered(ended=np.zeros(3, int)), "step: ended: got int64, expected bool"),
    ],
)
def test_each_fault_names_the_environment(method: str, does: Callable[[], Any], said: str) -> None:
    own = guarded()
    own.reset()
    own.inside.instead[method] = does  # type: ignore[attr-defined]
    with pytest.raises(EnvironmentFailed, match=f"^{NAME}: failed: {said}"):
        own.reset() if method == "reset" else own.step([0, 1, 0])
    # The games are undefined until the next reset.
    assert not own.can_save_state
    with pytest.raises(UnusableEnvironment, match="cannot be saved"):
        own.state()
    own.inside.instead.clear()  # type: ignore[attr-defined]
    own.reset()
    assert own.can_save_state


def test_what_was_returned_stays_as_it_was() -> None:
    """A user's environments may write every step into the same memory."""
    memory = altered()
    own = guarded(reset=lambda: memory.observation, step=lambda: memory)
    seen, step = own.reset(), own.step([0, 1, 0])
    before = [array.copy() for array in (seen, *(getattr(step, name) for name in Step.__slots__))]
    for name in Step.__slots__:
        getattr(memory, name)[:] = 1
    after = [seen, *(getattr(step, name) for name in Step.__slots__)]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [(np.float64, np.float32), (np.float16, np.float32), (np.int64, np.int64), (bool, bool)],
)
def test_numbers_of_other_types_can_be_learned_from(dtype: Any, becomes: Any) -> None:
    inside = Corridor(3, 0)
    inside.observation_dtype = np.dtype(dtype)
    inside.instead = {
        "reset": lambda: np.ones((3, 6), dtype),
        "step": lambda: altered(observation=np.ones((3, 6), dtype), reward=np.ones(3, dtype)),
    }
    own = GuardedEnvironments(NAME, inside)
    observation, step = own.reset(), own.step([0, 1, 0])
    assert own.observation_dtype == observation.dtype == step.observation.dtype == becomes
    assert step.reward.dtype == np.float32
    network = build_q_network((6,), 2, torso_hidden=[4])
    assert torch.equal(
        network(torch.from_numpy(observation)), network(torch.from_numpy(observation).float())
    )


def test_a_number_too_large_is_a_fault() -> None:
    own = guarded(step=lambda: altered(reward=np.array([0, 1e300, 0])))
    own.reset()
    with pytest.raises(EnvironmentFailed, match="step: reward: got inf, expected finite numbers"):
        own.step([0, 1, 0])


def test_closing_that_fails_is_a_warning() -> None:
    own = guarded(close=exits)
    with pytest.warns(RuntimeWarning, match=f"^{NAME}: failed: close raised SystemExit: 7 "):
        own.close()
    own.close()


@pytest.mark.parametrize("method", ["reset", "step", "close"])
def test_an_interrupt_says_where_it_hangs(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_asked", None)

    def hangs() -> Any:
        monkeypatch.setattr(time, "monotonic", lambda: began + 5.0)
        raise KeyboardInterrupt

    own = guarded()
    own.reset()
    began = time.monotonic()
    own.inside.instead[method] = hangs  # type: ignore[attr-defined]
    call = {"reset": own.reset, "step": lambda: own.step([0, 0, 0]), "close": own.close}[method]
    with pytest.raises(KeyboardInterrupt):
        call()
    if method != "close":
        own.close()  # what is closed after it does not cover it
    assert unanswered().startswith(f": {NAME}: failed: no answer from {method} for ")
