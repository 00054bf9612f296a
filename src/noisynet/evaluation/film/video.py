"""Filming a game of a run's agent, with its values and their noise, as MP4 or GIF."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from tempfile import TemporaryFile

import numpy as np
from PIL import Image

from ...disk import replacing
from ...envs import UnusableEnvironment
from ...extras import install_command
from ...runs.errors import RunError, writing
from ..conditions import check_noise, games_seed, noise_in_words
from .drawing import FrameDrawer
from .pictures import Game, make_game
from .watched import WatchedAgent

MOST_STEPS = {".mp4": 20_000, ".gif": 400}
"""Most agent steps that each kind of file may show: Pillow keeps all frames of a GIF in memory."""
DEFAULT_STEPS = {".mp4": 5_000, ".gif": 300}

_FASTEST = 30.0


@dataclass(frozen=True)
class Film:
    """What a film shows, and where it is."""

    path: Path
    environment: str
    steps: int
    """Agent steps that are shown."""
    game_return: float
    """The true return of these steps."""
    ended: bool
    """Whether the game is shown to its end."""
    effective_epsilon: float | None
    """Share of draws, 16 or more at each step, whose greedy action is not that of the mean weights;
    None without draws."""
    seed: int


def has_ffmpeg() -> bool:
    """Return whether MP4 can be written."""
    return importlib.util.find_spec("imageio_ffmpeg") is not None


def default_name(stem: str) -> str:
    """Return the file name of a film: MP4 if that can be written, else GIF."""
    return f"{stem}.mp4" if has_ffmpeg() else f"{stem}.gif"


def film(
    run: Path,
    *,
    out: Path | None = None,
    noise: int = False,
    seed: int | None = None,
    steps: int | None = None,
    quality: int = 26,
) -> Film:
    """Play one game with a run's agent and film it.

    `noise` is a number of draws: with 0 (False) the agent acts by its mean weights, with 1 (True)
    under a new draw at every step, with more by the mean of its values over that many new draws.

    `out` ends with .mp4 or .gif, and is replaced if it exists; by default the film is written to
    the run's folder, as watch.mp4, or watch.gif if there is no ffmpeg. `steps` limits the agent
    steps shown. `quality` is x264's constant rate factor: a lower one gives a better and larger
    film. Raises RunError, with a one-line message, if the run has no agent, the game cannot be
    drawn, the file cannot be written, or an argument is out of range.
    """
    path = out or run / default_name("watch")
    kind = _kind(path)
    most = DEFAULT_STEPS[kind] if steps is None else steps
    if most > MOST_STEPS[kind]:
        raise RunError(
            f"--steps: got {most}, expected at most {MOST_STEPS[kind]} for {kind.removeprefix('.')}"
        )
    agent = WatchedAgent.load(run)
    if noise:
        check_noise(run, agent.config, noise)
    seed = games_seed(agent.config) if seed is None else seed
    try:
        with closing(make_game(agent.config, seed)) as game:
            return _filmed(path, kind, game, agent, noise, most, quality, seed)
    except UnusableEnvironment as error:
        raise RunError(str(error)) from error


def _kind(path: Path) -> str:
    kind = path.suffix.lower()
    if kind not in MOST_STEPS:
        raise RunError(f"--out: got {str(path)!r}, expected a name that ends with .mp4 or .gif")
    if kind == ".mp4" and not has_ffmpeg():
        raise RunError(f"MP4 needs imageio-ffmpeg: {install_command('train')}, or name a .gif")
    return kind


def _filmed(
    path: Path,
    kind: str,
    game: Game,
    agent: WatchedAgent,
    noise: int,
    most: int,
    quality: int,
    seed: int,
) -> Film:
    drawer = FrameDrawer(
        f"{game.environments.id}, noise {noise_in_words(noise)}", game.action_names
    )
    every = max(round(game.steps_per_second / _FASTEST), 1)
    per_second = game.steps_per_second / every
    game_return, step, ended = 0.0, 0, False
    disagreeing: list[float] = []

    def frames() -> Iterator[Image.Image]:
        nonlocal game_return, step, ended
        observation = game.reset()
        agent.begin(np.ones(1, np.bool_))
        while True:
            look = agent.look(observation, noise=noise)
            if look.disagreeing is not None:
                disagreeing.append(look.disagreeing)
            last = ended or step >= most
            if step % every == 0 or last:
                frame = drawer.draw(game.picture(observation), look, step, game_return)
                # The last frame is shown for a second.
                yield from [frame] * (round(per_second) if last else 1)
            if last:
                return
            taken = game.step(look.action)
            if taken.first[0]:  # the game ended unseen: this is the next one
                ended = True
                continue
            step += 1
            game_return += float(taken.reward[0])
            observation, ended = taken.observation, bool(taken.ended[0])

    write = _write_mp4 if kind == ".mp4" else _write_gif
    with writing(path), replacing(path) as unfinished:
        write(unfinished, frames(), per_second, quality)
    effective = float(np.mean(disagreeing)) if disagreeing else None
    return Film(path, game.environments.id, step, game_return, ended, effective, seed)


def _write_mp4(path: Path, frames: Iterator[Image.Image], per_second: float, quality: int) -> None:
    import imageio_ffmpeg

    first = next(frames)
    width, height = first.size
    rate = str(Fraction(per_second).limit_denominator())
    seen = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "-"]
    made = ["-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", str(quality)]
    made += ["-preset", "veryfast", "-movflags", "+faststart", str(path)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *seen, *made]
    with TemporaryFile() as errors:
        with Popen(  # noqa: S603 - nothing in it is a user's
            command, stdin=PIPE, stdout=DEVNULL, stderr=errors, start_new_session=True
        ) as ffmpeg:
            assert ffmpeg.stdin is not None
            try:
                for frame in chain([first], frames):
                    ffmpeg.stdin.write(frame.tobytes())
            except BrokenPipeError:
                pass  # its exit status is checked below
            ffmpeg.communicate()
        if ffmpeg.returncode:
            errors.seek(0)
            first_line, *_ = errors.read().decode(errors="replace").splitlines() or ["it failed"]
            raise OSError(f"ffmpeg: {first_line.rpartition('] ')[2]}")


def _write_gif(path: Path, frames: Iterator[Image.Image], per_second: float, quality: int) -> None:
    del quality
    # One palette for all frames, or colours flicker and each frame brings its own table.
    first = next(frames).quantize(64)
    rest = (frame.quantize(palette=first, dither=Image.Dither.NONE) for frame in frames)
    first.save(
        path,
        format="GIF",
        save_all=True,
        append_images=rest,
        duration=round(1000 / per_second),
        loop=0,
        optimize=False,
    )
