"""Films: the agent sees what it saw in training, what is shown is what is played."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from PIL import Image

from noisynet.assemble import make_environments, start
from noisynet.cli import main
from noisynet.envs import AtariEnvironments, Environments, UnusableEnvironment
from noisynet.evaluation.agent import evaluate_run
from noisynet.evaluation.film import pictures, video
from noisynet.evaluation.film.drawing import FrameDrawer
from noisynet.evaluation.film.pictures import make_game
from noisynet.evaluation.film.video import film
from noisynet.evaluation.film.watched import WatchedAgent
from noisynet.runs import config
from noisynet.runs.errors import RunError

SMALL = {
    "steps": 400,
    "warmup_steps": 200,
    "batch_size": 16,
    "device": "cpu",
    "precision": "float32",
    "threads": 1,
}
needs_ffmpeg = pytest.mark.skipif(
    importlib.util.find_spec("imageio_ffmpeg") is None, reason="imageio-ffmpeg is not installed"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = config.load("cartpole", {**SMALL, "sigma0": 1.0})
    return start(chosen, tmp_path_factory.mktemp("video") / "run").folder


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ALE/Pong-v5", {"sticky_actions": 0.25}),
        ("ALE/Breakout-v5", {"frame_height": 60, "frame_stack": 2, "max_pool": False}),
        ("CartPole-v1", {}),
        ("MinAtar/Breakout-v1", {}),
        ("DeepSea-6", {}),
    ],
)
def test_the_same_actions_give_the_same_observations_as_in_training(
    name: str, fields: dict
) -> None:
    chosen = config.load(name, {**fields, "threads": 1, "device": "cpu"})
    environments, game = make_environments(chosen, count=1, seed=7), make_game(chosen, 7)
    generator = np.random.default_rng(0)
    try:
        assert (environments.reset() == game.reset()).all()
        for _ in range(150):
            action = int(generator.integers(environments.action_count))
            trained, filmed = environments.step([action]), game.step(action)
            assert (trained.observation == filmed.observation).all()
            assert trained.reward == filmed.reward
            assert trained.ended == filmed.ended
    finally:
        environments.close()
        game.close()


def test_the_screen_is_that_of_the_game_that_is_played() -> None:
    chosen = config.load("ALE/Pong-v5", {"sticky_actions": 0.25, "device": "cpu", "threads": 1})
    game = make_game(chosen, 3)
    generator = np.random.default_rng(1)
    try:
        observation = game.reset()
        for _ in range(120):
            observation = game.step(int(generator.integers(6))).observation
        screen = Image.fromarray(game.picture(observation)).convert("L")
        seen = np.asarray(screen.resize((84, 84), Image.Resampling.BOX)).astype(int)
        # Another way to make it grey and small: close, with the ball and both paddles in place.
        assert np.abs(seen - observation[0, -1].astype(int)).max() < 40
        assert game.action_names[:2] == ["NOOP", "FIRE"]
    finally:
        game.close()


@pytest.mark.parametrize("name", ["Chain-8", "DeepSea-6", "MinAtar/Asterix-v1", "CartPole-v1"])
def test_what_is_drawn_changes_with_the_game(name: str) -> None:
    chosen = config.load(name, {"device": "cpu"})
    game = make_game(chosen, 0)
    try:
        before = game.picture(game.reset())
        after = before
        for _ in range(3):
            after = game.picture(game.step(1).observation)
        assert before.shape == after.shape
        assert before.dtype == np.uint8
        assert (before != after).any()
    finally:
        game.close()


def test_looking_shows_means_draws_and_choice(run: Path) -> None:
    agent = WatchedAgent.load(run)
    observation = np.array([[0.01, 0.02, -0.01, 0.03]], np.float32)
    look = agent.look(observation)
    assert look.kind == "Q"
    assert look.values.shape == (2,)
    assert look.drawn is not None
    assert look.drawn.shape == (16, 2)
    assert len(np.unique(look.drawn[:, 0])) == 16
    assert look.action == look.values.argmax() == agent.act(observation)[0]
    assert look.disagreeing == np.mean(look.drawn.argmax(1) != look.action)
    noisy = agent.look(observation, noise=True)
    assert noisy.drawn is not None
    assert noisy.action == noisy.drawn[0].argmax()


def test_values_are_those_that_acting_chooses_by_in_bfloat16(tmp_path: Path) -> None:
    chosen = config.load("cartpole", {**SMALL, "steps": 250, "precision": "bfloat16"})
    agent = WatchedAgent.load(start(chosen, tmp_path / "run").folder)
    generator = np.random.default_rng(0)
    for _ in range(20):
        observation = generator.normal(0, 0.1, (1, 4)).astype(np.float32)
        look = agent.look(observation)
        assert look.action == agent.act(observation)[0]
        # bfloat16 has 8 bits of mantissa, so its values would leave the 16 lower ones empty.
        assert (look.values.view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize("chosen", [None, "offscreen"])
def test_drawing_leaves_the_caller_s_environment_alone(
    chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    if chosen is not None:
        monkeypatch.setenv("SDL_VIDEODRIVER", chosen)
    game = make_game(config.load("CartPole-v1", {"device": "cpu"}), 0)
    try:
        assert game.picture(game.reset()).any()
    finally:
        game.close()
    assert os.environ.get("SDL_VIDEODRIVER") == chosen


def test_a_twin_that_cannot_be_made_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[AtariEnvironments] = []
    close = AtariEnvironments.close

    def noted(self: AtariEnvironments) -> None:
        closed.append(self)
        close(self)

    def refuse(*_: object, **__: object) -> Environments:
        raise UnusableEnvironment("no twin")

    monkeypatch.setattr(AtariEnvironments, "close", noted)
    monkeypatch.setattr(pictures, "make", refuse)
    with pytest.raises(UnusableEnvironment, match="no twin"):
        make_game(config.load("ALE/Pong-v5", {"device": "cpu", "threads": 1}), 0)
    assert len(closed) == 1


@pytest.mark.parametrize("rate", ["as fast as it can", None, 0, float("nan")])
def test_a_game_whose_rate_is_no_number_has_a_usual_one(rate: Any) -> None:
    class Odd(CartPoleEnv):
        metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": rate}

    gymnasium.register("Odd-v0", Odd)
    try:
        with closing(make_game(config.load("Odd-v0", {"device": "cpu"}), 0)) as game:
            assert game.steps_per_second == 30
    finally:
        del gymnasium.registry["Odd-v0"]


@pytest.mark.parametrize("mode", ["rgb_array", None])
def test_an_environment_of_one_s_own_is_drawn_by_itself_if_it_was_made_to(
    mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"pole_{mode}"
    (tmp_path / f"{module}.py").write_text(
        "import gymnasium\n"
        f"def pole(): return gymnasium.make('CartPole-v1', render_mode={mode!r})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with closing(make_game(config.load(f"{module}:pole", SMALL), seed=0)) as game:
        picture = game.picture(game.reset())
    assert (picture.shape == (400, 600, 3)) == (mode == "rgb_array")


def test_pictures_of_other_sizes_fit_into_the_place_of_the_first(run: Path) -> None:
    look = WatchedAgent.load(run).look(np.zeros((1, 4), np.float32))
    drawer = FrameDrawer("title", ["left", "right"])
    frames = [
        drawer.draw(np.full((height, width, 3), 200, np.uint8), look, 0, 0.0)
        for height, width in ((40, 60), (60, 40), (500, 900))
    ]
    assert len({frame.size for frame in frames}) == 1
    # A picture that is higher than the first stands in the middle.
    assert [frames[1].getpixel((x, 210)) == (200, 200, 200) for x in (0, 240)] == [False, True]


@pytest.mark.parametrize(
    ("rendered", "got"),
    [
        (np.full((4, 6, 3), 0.5), "float64 of shape (4, 6, 3)"),
        (np.zeros((4, 6), np.uint8), "uint8 of shape (4, 6)"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_picture_is_refused(rendered: Any, got: str) -> None:
    class Odd(CartPoleEnv):
        def render(self) -> Any:
            return rendered

    gymnasium.register("Odd-v0", Odd)
    try:
        with closing(make_game(config.load("Odd-v0", {"device": "cpu"}), 0)) as game:
            with pytest.raises(UnusableEnvironment) as refused:
                game.picture(game.reset())
            assert f"Odd-v0: render: got {got}, expected" in str(refused.value)
    finally:
        del gymnasium.registry["Odd-v0"]


def test_a_game_that_cannot_be_shown_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[gymnasium.Env] = []

    def refuse(*_: object, **__: object) -> Environments:
        raise UnusableEnvironment("refused")

    class Odd(CartPoleEnv):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            opened.append(self)

        def close(self) -> None:
            super().close()
            if self in opened:
                opened.remove(self)

    monkeypatch.setattr(pictures, "GymnasiumEnvironments", refuse)
    gymnasium.register("Odd-v0", Odd)
    try:
        with pytest.raises(UnusableEnvironment, match="refused"):
            make_game(config.load("Odd-v0", {"device": "cpu"}), 0)
    finally:
        del gymnasium.registry["Odd-v0"]
    assert opened == []


def test_an_environment_that_fails_without_a_word_is_named_by_its_error() -> None:
    class Silent(CartPoleEnv):
        def __init__(self, **options: Any) -> None:
            raise ValueError

    gymnasium.register("Silent-v0", Silent)
    try:
        with pytest.raises(UnusableEnvironment, match="Silent-v0: cannot be made: ValueError"):
            make_game(config.load("Silent-v0", {"device": "cpu"}), 0)
    finally:
        del gymnasium.registry["Silent-v0"]


@needs_ffmpeg
@pytest.mark.parametrize("reads", ["", "cat > /dev/null"])
def test_a_film_that_the_disk_has_no_room_for_is_none(
    reads: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether ffmpeg fails at once, or when all frames have been sent to it."""
    out, ffmpeg = tmp_path / "a.mp4", tmp_path / "ffmpeg"
    out.write_bytes(b"before")
    said = "[out#0/mp4 @ 0x1] Error writing trailer: No space left on device"
    ffmpeg.write_text(f"#!/bin/sh\n{reads}\necho '{said}' >&2\nexit 228\n")
    ffmpeg.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(ffmpeg))
    with pytest.raises(RunError, match=r"a\.mp4: .* ffmpeg: Error writing trailer: No space left"):
        film(run, out=out, steps=300)
    assert out.read_bytes() == b"before"
    assert sorted(tmp_path.iterdir()) == [out, ffmpeg]


@needs_ffmpeg
def test_a_film_is_the_game_that_evaluation_plays(run: Path, tmp_path: Path) -> None:
    import imageio_ffmpeg

    out = tmp_path / "a.mp4"
    made = film(run, out=out, seed=5)
    assert made.ended
    assert made.game_return == made.steps == evaluate_run(run, episodes=1, seed=5)["mean"]
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(out))
    # CartPole's 50 steps a second are shown at 25 frames, and the end for a second more.
    assert frames == pytest.approx(made.steps / 2 + 25, abs=2)
    assert seconds == pytest.approx(frames / 25, abs=0.2)
    assert list(tmp_path.iterdir()) == [out]


def test_a_gif_is_bounded_and_says_where_it_is(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.gif"
    assert main(["watch", str(run), "--out", str(out), "--steps", "8", "--noise", "on"]) == 0
    said = capsys.readouterr().out
    assert f"Video: {out}" in said
    assert "the beginning of a game, 8 steps" in said
    with Image.open(out) as image:
        assert getattr(image, "n_frames", 1) > 4


def test_the_last_step_is_shown_for_a_second_also_between_two_frames(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[int] = []
    draw = FrameDrawer.draw

    def noted(self: FrameDrawer, picture: Any, look: Any, step: int, game_return: float) -> Any:
        drawn.append(step)
        return draw(self, picture, look, step, game_return)

    def count(_: Path, frames: Iterator[Any], *__: object) -> None:
        drawn.append(len(list(frames)))

    monkeypatch.setattr(FrameDrawer, "draw", noted)
    monkeypatch.setattr(video, "_write_gif", count)
    film(run, out=tmp_path / "a.gif", steps=5)
    # CartPole's 50 steps a second are shown at 25 frames.
    assert drawn == [0, 2, 4, 5, 3 + 25]


def test_the_mean_of_draws_acts_and_they_are_shown(run: Path, tmp_path: Path) -> None:
    agent = WatchedAgent.load(run)
    observation = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)
    for noise in (2, 40):
        look = agent.look(observation, noise=noise)
        assert look.drawn is not None
        assert len(look.drawn) == max(noise, 16)
        assert look.action == look.drawn[:noise].mean(0).argmax()
    out = tmp_path / "a.gif"
    arguments = ["watch", str(run), "--out", str(out), "--steps", "4", "--noise", "mean:3"]
    assert main(arguments) == 0
    assert out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"out": "film.avi"}, "ends with .mp4 or .gif"),
        ({"out": "film.gif", "steps": 401}, "--steps: got 401, expected at most 400"),
    ],
)
def test_what_cannot_be_filmed_is_one_line(run: Path, options: dict, said: str) -> None:
    chosen = {**options, "out": run / options["out"]}
    with pytest.raises(RunError, match=said):
        film(run, **chosen)


def test_an_agent_without_noise_has_none_to_show(tmp_path: Path) -> None:
    plain = start(config.load("cartpole-epsilon", SMALL), tmp_path / "run").folder
    with pytest.raises(RunError, match="--noise: got on, expected off"):
        film(plain, noise=True)
    agent = WatchedAgent.load(plain)
    assert agent.look(np.zeros((1, 4), np.float32)).drawn is None


@pytest.mark.parametrize("lstm", [0, 8])
def test_an_actor_critic_shows_its_policy(tmp_path: Path, lstm: int) -> None:
    fields = {"steps": 200, "device": "cpu", "precision": "float32", "threads": 1}
    chosen = config.load("cartpole-noisy-a2c", {**fields, "lstm_size": lstm})
    agent = WatchedAgent.load(start(chosen, tmp_path / "run").folder)
    agent.begin(np.ones(1, np.bool_))
    observation = np.zeros((1, 4), np.float32)
    look = agent.look(observation)
    assert look.kind == "probability"
    assert look.values.sum() == pytest.approx(1, abs=1e-5)
    assert (look.drawn is None) == bool(lstm)
    again = agent.look(observation)
    # An LSTM remembers what it has seen; without one the same is the same.
    assert (again.values != look.values).any() == bool(lstm)
