"""The tables of docs/sb3.md say which spaces each policy takes; here each of their cells is run."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from noisynet.integrations import sb3
from noisynet.integrations.sb3.algorithm import ALGORITHMS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "sb3.md"
BOX = spaces.Box(-1, 1, (3,), np.float32)
SPACES: dict[str, spaces.Space[Any]] = {
    "Discrete": spaces.Discrete(3),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(2),
    "Box": BOX,
    "images": spaces.Box(0, 255, (36, 36, 1), np.uint8),
    "Dict": spaces.Dict({"vector": BOX, "number": spaces.Discrete(2)}),
}


def cells(head: str) -> list[Any]:
    """Each cell of the table whose first column has this head: policy, space, what is said."""
    lines = iter(PAGE.read_text(encoding="utf-8").splitlines())
    kinds = next(line for line in lines if line.startswith(f"| {head} |")).split("|")[2:-1]
    next(lines)
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        names, *said = line.split("|")[1:-1]
        for name in re.findall(r"`(\w+)`", names):
            for kind, cell in zip(kinds, said, strict=True):
                space = kind.strip(" `")
                found.append(pytest.param(name, space, cell.strip(), id=f"{name}-{space}"))
    return found


class Game(gymnasium.Env[Any, Any]):
    """Episodes of three steps in any spaces."""

    def __init__(self, seen: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = seen, actions

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
        assert self.action_space.contains(action)
        self.steps += 1
        return self.observation_space.sample(), 1.0, self.steps == 3, False, {}


def learns(name: str, policy: Any, seen: spaces.Space[Any], actions: spaces.Space[Any]) -> bool:
    """Whether the host learns in these spaces, by a policy of ours or its own."""
    algorithm: Any = ALGORITHMS[name]
    # In all layers, so that extractors and LSTMs are noisy, too.
    noise = {} if isinstance(policy, str) else {"noise_in": "all"}
    options: dict[str, Any] = {"policy_kwargs": {"net_arch": [4], **noise}}
    if issubclass(algorithm, OnPolicyAlgorithm):
        options["n_steps"] = 4
    else:
        options |= {"buffer_size": 20, "learning_starts": 2, "batch_size": 4}
    if "DQN" in name:
        options |= {"exploration_initial_eps": 0, "exploration_final_eps": 0}
    if "PPO" in name:
        options |= {"batch_size": 4, "n_epochs": 1}
    environments = DummyVecEnv([lambda: Game(seen, actions)] * 2)
    try:
        model = algorithm(policy, environments, device="cpu", seed=0, **options)
        before = copy.deepcopy(model.policy.state_dict())
        model.learn(16)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    sigmas = [key for key in before if key.endswith("_sigma") and "target" not in key]
    now = model.policy.state_dict()
    assert bool(sigmas) == any(bool((now[key] != before[key]).any()) for key in sigmas)
    assert bool(sigmas) == (not isinstance(policy, str)), "ours has noise, and it learns"
    assert len(model.predict(environments.reset(), deterministic=True)[0]) == 2
    return True


def check(name: str, kind: str, seen: spaces.Space[Any], actions: spaces.Space[Any]) -> bool:
    """Whether our policy learns; where it does not, neither does the host's own."""
    if learns(name, getattr(sb3, name), seen, actions):
        return True
    own = "MultiInput" if isinstance(seen, spaces.Dict) else "Mlp"
    own += "LstmPolicy" if "Recurrent" in name else "Policy"
    assert not learns(name, own, seen, actions), f"the host takes {kind}"
    return False


@pytest.mark.parametrize(("policy", "space", "said"), cells("observations"))
def test_observations(policy: str, space: str, said: str) -> None:
    actions = BOX if cells_of(policy)["Box"] == "yes" else SPACES["Discrete"]
    assert check(policy, space, SPACES[space], actions) == (said == "yes")


@pytest.mark.parametrize(("policy", "space", "said"), cells("actions"))
def test_actions(policy: str, space: str, said: str) -> None:
    assert check(policy, space, BOX, SPACES[space]) == (said == "yes")


def cells_of(policy: str) -> dict[str, str]:
    """What the page says of a policy's actions, {space: yes or no}."""
    found = (one.values for one in cells("actions"))
    return {str(space): str(said) for name, space, said in found if name == policy}


@pytest.mark.parametrize("head", ["observations", "actions"])
def test_every_policy_and_space_has_its_cell(head: str) -> None:
    kinds = set(SPACES) - ({"images"} if head == "actions" else set())
    found = [one.values[:2] for one in cells(head)]
    assert sorted(found) == sorted((name, kind) for name in ALGORITHMS for kind in kinds)
