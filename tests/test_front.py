"""Training from Python: what is given in place of a name, how it is recorded, and the agent."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

import noisynet
from noisynet import envs, front
from noisynet.assemble import own_objects
from noisynet.cli import main
from noisynet.runs import RunError, checkpoint, open_run
from noisynet.training import GameFinished, Listener, TrainingEnded

SMALL: dict[str, Any] = {
    "steps": 160, "warmup_steps": 80, "batch_size": 8, "n_step": 1, "device": "cpu",
    "progress": False,
}  # fmt: skip


class Match(gymnasium.Env[Any, Any]):
    """One of three signs at each step; naming it, from 5 on, is worth 1."""

    observation_space: spaces.Space[Any] = spaces.Box(0.0, 1.0, (3,), np.float32)
    action_space = spaces.Discrete(3, start=5)
    closed = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 10
        return self.show(), {}

    def step(self, action: Any) -> Any:
        assert 5 <= action < 8
        reward, self.left = float(action == self.sign + 5), self.left - 1
        return self.show(), reward, False, self.left == 0, {}

    def show(self) -> Any:
        self.sign = int(self.np_random.integers(3))
        return self.seen(self.sign)

    def seen(self, sign: int) -> Any:
        return np.eye(3, dtype=np.float32)[sign]

    def close(self) -> None:
        self.closed = True


class MatchInParts(Match):
    observation_space = spaces.Dict(sign=spaces.Discrete(3), rest=spaces.Box(0, 1, (2,)))

    def seen(self, sign: int) -> Any:
        return {"sign": sign, "rest": np.zeros(2, np.float32)}


class MatchOfColours(Match):
    observation_space = spaces.Box(0, 255, (12, 12, 3), np.uint8)

    def seen(self, sign: int) -> Any:
        image = np.zeros((12, 12, 3), np.uint8)
        image[..., sign] = 255
        return image


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_objects, "_GIVEN", {})


@pytest.fixture
def elsewhere() -> Iterator[Any]:
    """Forget what was given, as another process never knew it."""
    return lambda: own_objects._GIVEN.clear()


def recorded(folder: Path) -> Any:
    return open_run(folder).config


# What is given, and how it is recorded


def test_a_class_is_recorded_where_it_can_be_imported() -> None:
    agent = noisynet.train(Match, **SMALL)
    found = recorded(agent.folder)
    assert found.environment.environment == f"{__name__}:Match"
    assert found.environment.environments == 8
    assert agent.folder.parent == Path("runs")
    assert "Match" in agent.folder.name
    assert (agent.step, found.learning.n_step) == (160, 1)
    # With the preset `control`, or the one that is named.
    assert found.exploration.sigma0 == 0.2
    pqn = noisynet.train(Match, preset="pqn-cartpole", steps=2000, progress=False, device="cpu")
    assert recorded(pqn.folder).learning.algorithm == "pqn"
    assert recorded(pqn.folder).environment.environment == f"{__name__}:Match"


def test_a_script_is_a_module_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ModuleType("__main__")
    script.__file__, script.__spec__ = str(tmp_path / "play.py"), None
    (tmp_path / "play.py").write_text("")
    own: Any = type("Own", (Match,), {"__module__": "__main__", "__qualname__": "Own"})
    script.Own = own  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "__main__", script)
    assert own_objects.name_of(own) == "<Own>"  # Python does not find the script
    monkeypatch.syspath_prepend(tmp_path)
    assert own_objects.name_of(own) == "play:Own"
    assert own_objects.found("play:Own") is own
    del script.__file__  # as in a notebook
    assert own_objects.name_of(own) == "<Own>"


def test_other_things_have_names_of_their_own() -> None:
    makers = [lambda: Match(), lambda: Match()]
    assert [own_objects.name_of(one) for one in makers * 2] == ["<lambda>", "<lambda-2>"] * 2
    assert own_objects.name_of(nn.Linear(2, 2)) == "<Linear>"
    assert own_objects.name_of(Match()) == "<Match>"
    assert own_objects.environment_name(gymnasium.make("CartPole-v1")) == "CartPole-v1"
    pictures = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    assert own_objects.environment_name(pictures) == "CartPole-v1"
    for other in (
        gymnasium.make("CartPole-v1", max_episode_steps=7),
        gymnasium.wrappers.FlattenObservation(gymnasium.make("CartPole-v1")),
    ):
        assert own_objects.environment_name(other).startswith("<CartPoleEnv")


def test_an_environment_is_the_only_one_that_is_stepped_and_stays_open() -> None:
    environment = Match()
    agent = noisynet.train(environment, **SMALL)
    assert recorded(agent.folder).environment.environment == "<Match>"
    assert recorded(agent.folder).environment.environments == 1
    assert agent.evaluate(3)["episodes"] == 3
    assert not environment.closed
    with pytest.raises(RunError, match="got 3 of one object, <Match>, expected 1: give a function"):
        noisynet.train(environment, environments=3, **SMALL)


def test_what_others_cannot_make_is_given_again(elsewhere: Any, capsys: Any) -> None:
    agent = noisynet.train(lambda: Match(), out="run", torso=nn.Linear(3, 8), **SMALL)
    expected = agent.predict(np.eye(3))
    elsewhere()
    cure = (
        r"^<lambda>: .*\(noisynet.load\(FOLDER, environment=…\)\), or set environment in the run's"
    )
    for attempt in (noisynet.load, noisynet.resume):
        with pytest.raises(RunError, match=cure):
            attempt("run", **({"steps": 240} if attempt is noisynet.resume else {}))
    assert main(["evaluate", "run"]) == 2
    assert "config.yaml to module:function" in capsys.readouterr().err
    with pytest.raises(RunError, match=r"torso=…"):
        noisynet.load("run", environment=Match)
    again = noisynet.load("run", environment=Match, torso=nn.Linear(3, 8))
    assert (again.predict(np.eye(3)) == expected).all()
    longer = noisynet.resume("run", steps=240, progress=False)  # known by now
    assert longer.step == 240


def test_a_name_that_others_can_import_may_take_its_place(elsewhere: Any) -> None:
    agent = noisynet.train(Match(), out="run", **SMALL)
    file = agent.folder / "config.yaml"
    file.write_text(file.read_text().replace("<Match>", f"{__name__}:Match"))
    elsewhere()
    assert noisynet.load("run").step == agent.step
    file.write_text(file.read_text().replace(f"{__name__}:Match", "CartPole-v1"))
    with pytest.raises(RunError):
        noisynet.load("run")


def test_what_needs_nothing_again_refuses_it() -> None:
    noisynet.train("CartPole-v1", out="run", **SMALL)
    with pytest.raises(
        RunError, match=r"environment: got .*Match.*, expected none: run needs none"
    ):
        noisynet.load("run", environment=Match)


@pytest.mark.parametrize("thing", [3, None, ["CartPole-v1"]])
def test_what_is_no_environment_is_refused(thing: Any) -> None:
    with pytest.raises(
        RunError, match=r"environment: got .*, expected a preset, an environment id"
    ):
        noisynet.train(thing)


def test_fields_are_checked() -> None:
    with pytest.raises(RunError, match="got 'stepz', expected the name of a field; did you mean"):
        noisynet.train(Match, stepz=3)
    with pytest.raises(RunError, match="did you mean own_network"):
        noisynet.train(Match, network=nn.Linear(3, 3))
    with pytest.raises(RunError, match="expected a preset"):
        noisynet.train("cartpol")
    assert not Path("runs").exists()


def test_objects_stay_in_their_process() -> None:
    environment = Match()
    for more in ({"preset": "cartpole-noisy-a3c"}, {"actors": 2}):
        with pytest.raises(
            RunError, match="environment: got <Match>, expected a function or class"
        ):
            noisynet.train(environment, progress=False, **more)


def test_a_script_without_a_guard_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unguarded.py").write_text("import noisynet\nnoisynet.train('cartpole')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        envs.UnusableEnvironment, match=r"unguarded:Own.*`if __name__ == '__main__'"
    ):
        envs.make("unguarded:Own", 1, seed=0)


# The agent


def test_predict_speaks_the_language_of_the_environment() -> None:
    agent = noisynet.train(MatchInParts, sigma0=3.0, **SMALL)
    one = {"sign": 2, "rest": np.zeros(2)}
    action = agent.predict(one)
    assert np.ndim(action) == 0
    assert action in range(5, 8)
    assert agent.predict([one, one]).tolist() == [action, action]
    noisy = {int(agent.predict(one, deterministic=False)) for _ in range(60)}
    assert len(noisy) > 1
    assert noisy <= {5, 6, 7}
    for misfit in ({"sign": 2}, {"sign": 2, "rest": np.zeros(3)}, [], [one, {}]):
        with pytest.raises(ValueError, match=r"^observation: "):
            agent.predict(misfit)


def test_predict_takes_images_as_they_are_given() -> None:
    agent = noisynet.train(MatchOfColours, **SMALL)
    images = [MatchOfColours().seen(sign) for sign in range(3)]
    actions = agent.predict(np.stack(images))
    assert actions.tolist() == [agent.predict(one) for one in images]
    with pytest.raises(ValueError, match=r"observation: .*shape \(3, 12, 12\)"):
        agent.predict(images[0].transpose(2, 0, 1))


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_predict_takes_finite_numbers_alone(bad: float) -> None:
    agent = noisynet.train(MatchInParts, **SMALL)
    good = {"sign": 2, "rest": np.zeros(2)}
    misfit = {"sign": 2, "rest": np.array([0, bad])}
    for observation in (misfit, [good, misfit]):
        for deterministic in (True, False):
            said = f"^observation: got {bad}, expected finite numbers$"
            with pytest.raises(ValueError, match=said):
                agent.predict(observation, deterministic=deterministic)


def test_a_policy_is_drawn_from_unless_it_is_deterministic() -> None:
    fields = {"steps": 80, "device": "cpu", "progress": False}
    agent = noisynet.train(Match, preset="cartpole-a2c", **fields)
    assert len(set(agent.predict(np.ones((60, 3))).tolist())) == 1
    assert len(set(agent.predict(np.ones((60, 3)), deterministic=False).tolist())) == 3


def test_an_agent_of_epsilon_acts_the_same_either_way() -> None:
    agent = noisynet.train(Match, exploration="epsilon", **SMALL)
    signs = np.eye(3)
    assert (agent.predict(signs) == agent.predict(signs, deterministic=False)).all()


def test_an_agent_is_saved_and_loaded() -> None:
    agent = noisynet.train(Match, **SMALL)
    agent.save("kept")
    again = noisynet.load("kept")
    assert (again.predict(np.eye(3)) == agent.predict(np.eye(3))).all()
    assert again.evaluate(2)["returns"] == agent.evaluate(2)["returns"]
    with pytest.raises(RunError, match="not empty"):
        agent.save("kept")


def test_an_agent_that_cannot_be_saved_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    agent = noisynet.train(Match, **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_file", full)
        with pytest.raises(RunError, match="cannot be written: No space left on device"):
            agent.save("kept")
    assert not Path("kept").exists()
    agent.save("kept")


def test_the_program_keeps_its_threads() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        agent = noisynet.train(Match, threads=1, **SMALL)
        agent.evaluate(1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_listeners_hear_the_run() -> None:
    class Heard(Listener):
        def __init__(self) -> None:
            self.events: list[Any] = []

        def on_event(self, event: Any, elapsed: float) -> None:
            self.events.append(event)

    heard = Heard()
    noisynet.train(Match, listeners=[heard], **SMALL)
    assert len([one for one in heard.events if isinstance(one, GameFinished)]) == 16
    assert isinstance(heard.events[-1], TrainingEnded)


def test_an_interrupt_is_one_once_the_run_is_saved() -> None:
    class Impatient(Listener):
        def on_event(self, event: Any, elapsed: float) -> None:
            raise SystemExit  # as a display whose pipe is closed

    with pytest.raises(KeyboardInterrupt, match="saved in run at step"):
        noisynet.train(Match, out="run", listeners=[Impatient()], **SMALL)
    assert noisynet.load("run").step < 160


# One's own networks


def test_an_error_without_a_message_is_named_by_its_type() -> None:
    def torso(shape: tuple[int, ...]) -> nn.Module:
        raise RuntimeError

    with pytest.raises(RunError, match=r"RuntimeError"):
        noisynet.train(Match, torso=torso, **SMALL)


def test_a_torso_of_one_s_own() -> None:
    def torso(shape: tuple[int, ...]) -> nn.Module:
        return nn.Sequential(nn.Linear(*shape, 16), nn.Tanh())

    agent = noisynet.train(Match, torso=torso, sigma0=0.3, **SMALL)
    assert recorded(agent.folder).network.torso == "<torso>"
    layers = noisynet.noisy_layers(agent._agent.network)
    assert list(layers) == ["head.q.0", "head.q.2"]
    assert layers["head.q.0"].weight.shape[1] == 16
    noisy = noisynet.train(Match, torso=torso((3,)), noise_in="all", **SMALL)
    assert "torso.body.0" in noisynet.noisy_layers(noisy._agent.network)
    policy = noisynet.train(
        Match, preset="cartpole-noisy-a2c", torso=torso, steps=80, progress=False, device="cpu"
    )
    assert policy.predict(np.eye(3)).shape == (3,)


def test_a_whole_network_is_copied_and_made_noisy() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 3))
    before = [one.clone() for one in net.parameters()]
    agent = noisynet.train(Match, own_network=net, learning_rate=1e-9, **SMALL)
    assert all(torch.equal(*pair) for pair in zip(before, net.parameters(), strict=True))
    assert noisynet.noisy_layers(net) == {}
    inside = agent._agent.network
    assert list(noisynet.noisy_layers(inside)) == ["torso.body.0", "torso.body.2"]
    expected = net(torch.eye(3)).argmax(-1).numpy() + 5
    assert (agent.predict(np.eye(3)) == expected).all()
    assert agent.evaluate(2)["episodes"] == 2
    with pytest.raises(RunError, match="--torso-hidden: would do nothing: own_network is <Seq"):
        noisynet.train(Match, own_network=net, torso_hidden=[3], **SMALL)
    with pytest.raises(RunError, match=r"own_network: got <Seq.*a2c learns no Q-values"):
        noisynet.train(Match, own_network=net, preset="cartpole-noisy-a2c")
    with pytest.raises(RunError, match=r"<Sequential>, expected none with atoms 51"):
        noisynet.train(Match, own_network=net, preset="cartpole-c51")
    with pytest.raises(RunError, match="Linear: got 4 values, expected one for each of 3 actions"):
        noisynet.train(Match, own_network=nn.Linear(3, 4), **SMALL)


def test_a_network_that_is_noisy_needs_exploration_by_noise() -> None:
    net = noisynet.noisify(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(RunError, match="exploration: got epsilon, expected noise or both"):
        noisynet.train(Match, own_network=net, exploration="epsilon", **SMALL)
    agent = noisynet.train(Match, own_network=net, **SMALL)
    assert list(noisynet.noisy_layers(agent._agent.network)) == ["torso.body.0"]


def test_a_network_is_imported_by_its_place(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "my_nets.py").write_text(
        "import torch\ndef net(shape, actions): return torch.nn.Linear(*shape, actions)\n"
        "def other(shape, actions): return 3\n"
        "def lost(shape, actions): return torch.nn.Linear(shape['size'], actions)\n"
        "class Deaf(torch.nn.Module):\n"
        "    def __init__(self, shape, actions): super().__init__()\n"
        "    def forward(self, x): return self.layer(x)\n"
    )
    options = [f"--{one.replace('_', '-')}={SMALL[one]}" for one in list(SMALL)[:-1]]
    try:
        command = ["train", "CartPole-v1", "--out", "run", *options, "--own-network"]
        assert main([*command, "my_nets:net"]) == 0
        assert main(["evaluate", "run", "--episodes", "1"]) == 2
        said = capsys.readouterr().err
        assert "its own_network is my_nets:net: that imports my_nets (" in said
        assert main(["evaluate", "run", "--episodes", "1", "--trust"]) == 0
        for place, message in (
            ("my_nets:other", "my_nets:other returned int, expected a module"),
            ("my_nets:lost", "own_network: my_nets:lost raised TypeError: tuple indices must be"),
            ("my_nets:Deaf", "Deaf: raised AttributeError for observations (2, 4): 'Deaf' object"),
            ("my_nets:nett", "my_nets has no function 'nett'; nearest: net"),
            ("mlp", "--own-network: got 'mlp', expected module:function, or none"),
        ):
            assert main([*command[:-1], "--out", "more", "--own-network", place]) == 2
            assert message in capsys.readouterr().err
    finally:
        sys.modules.pop("my_nets", None)


def test_without_the_extra_the_cure_is_named() -> None:
    code = """
import inspect, sys
sys.modules["pydantic"] = None
import noisynet
try:
    noisynet.train
except ImportError as error:
    print(error)
assert "train" not in dir(noisynet) and "train" not in noisynet.__all__
assert "hold" in dict(inspect.getmembers(noisynet))  # `help` reads these, too
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"noisynet\.train needs pydantic: pip install .*\n", done.stdout)
    assert {*front.__all__} == {*noisynet.WITH_TRAIN}
