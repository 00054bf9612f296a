"""The asynchronous actor-critic: real worker processes, and what happens when they die."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch

from noisynet.agents import ActorCritic
from noisynet.assemble import build_agent, resume, start
from noisynet.assemble.workers import WorkerParts
from noisynet.runs import Config, RunError, checkpoint, config, read_metrics
from noisynet.training import (
    AsynchronousLoop,
    Event,
    GameFinished,
    Progress,
    TrainingEnded,
    WorkerRestarted,
)
from noisynet.training.a3c import asynchronous_loop

SMALL = {
    "environments": 2, "rollout_steps": 8, "log_every": 20, "device": "cpu", "torso_hidden": [16],
    "head_hidden": 16,
}  # fmt: skip

PATIENCE = 300.0
"""Seconds until a test gives up, on a machine that has much else to do."""


def small(**overrides: Any) -> Config:
    return config.load("cartpole-noisy-a3c", {**SMALL, **overrides})


def make_loop(chosen: Config) -> AsynchronousLoop:
    agent = build_agent(chosen, (4,), 2)
    assert isinstance(agent, ActorCritic)
    return AsynchronousLoop(
        Progress(steps=chosen.training.steps),
        agent,
        WorkerParts(chosen, (4,), 2),
        workers=chosen.actor_critic.workers,
    )


def test_a_message_that_its_sender_died_over_is_no_trouble() -> None:
    receiving, sending = Pipe(duplex=False)
    sending.send("whole")
    os.write(sending.fileno(), b"\x00\x00\x01\x00half")
    sending.close()
    received = asynchronous_loop._received  # pyright: ignore[reportPrivateUsage]
    assert list(received(receiving)) == ["whole"]  # type: ignore[arg-type, comparison-overlap]


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_killed_worker_is_replaced_and_the_others_go_on(one_thread: None) -> None:
    loop = make_loop(small(steps=10**8, workers=2))
    before = {name: value.clone() for name, value in loop.agent.network.state_dict().items()}
    events: list[Event] = []
    killed: list[int] = []
    replaced: list[int] = []
    # Of environments 0 and 1, which the killed worker has, and 2 and 3, which it has not.
    played_after: set[int] = set()
    for event in loop.run():
        events.append(event)
        if isinstance(event, WorkerRestarted):
            replaced = loop.process_ids
        if isinstance(event, GameFinished):
            if replaced:
                played_after.add(event.environment)
            elif not killed and event.environment == 0:
                killed = loop.process_ids
                os.kill(killed[0], signal.SIGKILL)
            # A uniformly random player gets about 22. When it is more depends on the scheduler.
            learned = event.mean_return > 40 or event.step >= 100_000
            if played_after == {0, 1, 2, 3} and learned:
                loop.progress.stop()
    restarts = [event for event in events if isinstance(event, WorkerRestarted)]
    assert [(one.worker, one.reason, one.restarts) for one in restarts] == [
        (0, "killed by SIGKILL", 1)
    ]
    assert replaced[0] != killed[0]
    # The other one was neither stopped nor replaced.
    assert replaced[1] == killed[1]
    ended = events[-1]
    assert isinstance(ended, TrainingEnded)
    assert ended.reason == "interrupted"
    assert loop.agent.updates >= loop.progress.step / (2 * 8)
    games = [event for event in events if isinstance(event, GameFinished)]
    assert 0 < sum(game.game_steps for game in games) <= loop.progress.step
    assert all(game.game_return == game.game_steps for game in games)
    assert max(game.mean_return for game in games) > 40
    for name, value in loop.agent.network.state_dict().items():
        assert not torch.equal(value, before[name]), name
    assert loop.process_ids == []
    assert not any(alive(pid) for pid in {*killed, *replaced})


@pytest.mark.slow
def test_workers_that_are_killed_at_any_moment_stop_nobody(one_thread: None) -> None:
    loop = make_loop(small(steps=10**8))
    generator = random.Random(0)
    kills = restarts = 0
    for event in loop.run():
        restarts += isinstance(event, WorkerRestarted)
        if kills < 10 and kills == restarts and isinstance(event, GameFinished):
            # Somewhere within the next few rollouts, the writing of messages included.
            time.sleep(generator.uniform(0, 0.02))
            os.kill(loop.process_ids[kills % 2], signal.SIGKILL)
            kills += 1
        if restarts == 10:
            loop.progress.stop()
    assert kills == restarts == 10
    assert loop.agent.is_finite()
    assert loop.progress.step > 0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has waited for is not alive.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_worker_that_cannot_live_ends_the_run_with_a_reason_and_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_game.py").write_text(
        textwrap.dedent(
            """
            import multiprocessing
            import gymnasium

            def build():
                if multiprocessing.parent_process() is not None:
                    raise OSError("no such level")
                return gymnasium.make("CartPole-v1")
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(asynchronous_loop, "_FRUITLESS_LIVES", 2)
    run = tmp_path / "run"
    with pytest.raises(RunError) as caught:
        start(small(environment="broken_game:build", workers=1), run)
    message = str(caught.value)
    assert "worker 0 died 2 times in a row without an update" in message
    assert "no such level" in message
    assert "saved at step 0" in message
    assert "\n" not in message
    saved = checkpoint.read_newest(run / "checkpoints")
    assert saved is not None
    assert saved.step == 0
    restarts = [record for record in read_metrics(run) if "worker/restarts" in record]
    assert len(restarts) == 1


def in_a_process(run: Path) -> subprocess.Popen[str]:
    flags = [
        text
        for name, value in {**SMALL, "steps": 10**8, "checkpoint_every": 300}.items()
        for text in (f"--{name.replace('_', '-')}", str(value))
    ]
    command = ["-m", "noisynet", "train", "cartpole-noisy-a3c", "--out", str(run), *flags]
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while checkpoint.newest(run / "checkpoints") is None:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.05)
    return process


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(one) for one in text.split()]


def gone(pids: list[int], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc")


@linux
def test_ctrl_c_saves_leaves_no_process_behind_and_the_run_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = in_a_process(run)
    workers = children(process.pid)
    assert len(workers) >= 2
    # A terminal sends it to every process.
    for pid in (*workers, process.pid):
        os.kill(pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors == ""
    assert gone(workers)
    saved = checkpoint.read_newest(run / "checkpoints")
    assert saved is not None
    config_file = run / "config.yaml"
    config_file.write_text(
        config_file.read_text().replace("steps: 100000000\n", f"steps: {saved.step + 500}\n")
    )
    outcome = resume(run)
    assert outcome.reason == "steps"
    # Workers stop by themselves, at most a rollout late each.
    assert saved.step + 500 <= outcome.step <= saved.step + 500 + 2 * 2 * 8
    steps = [record["step"] for record in read_metrics(run)]
    assert steps == sorted(steps)


@linux
def test_workers_do_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    process = in_a_process(tmp_path / "run")
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert gone(workers)
