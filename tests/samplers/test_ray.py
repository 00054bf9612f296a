"""Samplers and shards as Ray actors, and what happens when they, a node or the driver die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from noisynet import samplers
from noisynet.runs import Config, RunError, RunFolder, checkpoint, config, read_metrics
from noisynet.samplers import SamplersAssembler
from noisynet.training import Event, FiguresTaken, GameFinished, WorkerRestarted, session

ray = pytest.importorskip("ray", reason="Ray is an extra")

pytestmark = [
    # Ray leaves sockets and processes to its own clean-up.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SMALL = {
    "actors": 2, "environments": 4, "steps": 10**7, "warmup_steps": 200, "replay_capacity": 1000,
    "batch_size": 16, "update_every": 8, "target_every": 200, "fragment_steps": 8,
    "checkpoint_every": 400, "log_every": 10, "torso_hidden": [16], "head_hidden": 16, "seed": 3,
    "threads": 1,
}  # fmt: skip
PATIENCE = 300.0
"""Seconds until a test gives up, on a machine that has much else to do."""


def small(preset: str = "cartpole", **overrides: Any) -> Config:
    return config.load(preset, {**SMALL, **overrides})


class Observed(SamplersAssembler):
    """Keep the loop, so that a test finds the processes behind it."""

    kept: Any

    def loop(self, folder: RunFolder) -> Any:
        self.kept = super().loop(folder)
        return self.kept

    @property
    def sampler_ids(self) -> dict[int, int]:
        return self.samplers.process_ids  # type: ignore[attr-defined]

    @property
    def shard_ids(self) -> list[int]:
        return [host.process_id for host in self.kept.source.replay._hosts]


def until(events: Iterator[Event], done: Callable[[Event], bool]) -> list[Event]:
    """Take events until one of them ends the wait."""
    deadline = time.monotonic() + PATIENCE
    seen: list[Event] = []
    for event in events:
        seen.append(event)
        if done(event):
            return seen
        assert time.monotonic() < deadline, seen[-5:]
    raise AssertionError(f"the run ended: {seen[-3:]}")


def restarted(event: Event) -> bool:
    return isinstance(event, WorkerRestarted)


def both_play_on(step: int) -> Callable[[Event], bool]:
    """Wait for games of both samplers that ended some time after a step."""
    left = {0, 1}

    def done(event: Event) -> bool:
        if isinstance(event, GameFinished) and event.step > step:
            left.discard(event.environment // 4)
        return not left

    return done


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def assert_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_killed_samplers_and_shards_come_back(tmp_path: Path) -> None:
    """kill -9 of a sampler, then of a shard; the others are not replaced, and all goes on."""
    folder = tmp_path / "run"
    chosen = small(replay_shards=2, prioritised=True)
    pids: set[int] = set()
    observed = Observed(chosen)
    with closing(session.train(observed, folder)) as events:
        until(events, lambda event: isinstance(event, FiguresTaken) and event.step > 500)
        loop = observed.kept
        players, shards = observed.sampler_ids, observed.shard_ids
        pids |= {*players.values(), *shards}
        assert len(pids) == 4
        assert os.getpid() not in pids

        os.kill(players[0], signal.SIGKILL)
        (event,) = [one for one in until(events, restarted) if isinstance(one, WorkerRestarted)]
        assert (event.worker, event.restarts) == (0, 1)
        assert "\n" not in event.reason
        assert "Actor" in event.reason
        until(events, both_play_on(loop.progress.step + 200))
        assert observed.sampler_ids[0] != players[0]
        assert observed.sampler_ids[1] == players[1]

        os.kill(shards[1], signal.SIGKILL)
        (event,) = [one for one in until(events, restarted) if isinstance(one, WorkerRestarted)]
        assert (event.worker, event.restarts) == (3, 2)
        assert event.reason.startswith("replay shard 1: ")
        updates = loop.agent.updates
        until(events, both_play_on(loop.progress.step + 200))
        assert loop.agent.updates > updates
        assert observed.shard_ids[0] == shards[0]
        pids |= {*observed.sampler_ids.values(), *observed.shard_ids}
        loop.progress.stop()
        for _ in events:
            pass
    assert_gone(pids)
    records = list(read_metrics(folder))
    assert [r["worker/number"] for r in records if "worker/number" in r] == [0, 3]
    # Updates kept to the steps that came in.
    assert loop.agent.updates <= (loop.progress.step - 200) // 8
    saved = checkpoint.read_newest(folder / "checkpoints")
    assert saved is not None
    assert saved.step == loop.progress.step
    assert len(saved.state["replay"]["shards"]) == 2


def test_the_actor_critic_goes_on_without_a_killed_sampler(tmp_path: Path) -> None:
    chosen = config.load(
        "cartpole-noisy-a2c",
        {
            "actors": 2, "environments": 4, "steps": 10**7, "rollout_steps": 8, "log_every": 10,
            "torso_hidden": [16], "head_hidden": 16, "threads": 1,
        },
    )  # fmt: skip
    observed = Observed(chosen)
    with closing(session.train(observed, tmp_path / "run")) as events:
        until(events, lambda event: isinstance(event, FiguresTaken))
        loop = observed.kept
        os.kill(observed.sampler_ids[1], signal.SIGKILL)
        until(events, restarted)
        until(events, both_play_on(loop.progress.step + 200))
        loop.progress.stop()
        for _ in events:
            pass
    figures = [r for r in read_metrics(tmp_path / "run") if "scale/staleness_max" in r]
    assert {one["scale/staleness_max"] for one in figures} == {0.0}
    assert loop.agent.is_finite()


@pytest.mark.slow
def test_a_lost_node_s_sampler_moves(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    try:
        other = cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        chosen = small()
        observed = Observed(chosen, cluster.address)
        with closing(session.train(observed, tmp_path / "run")) as events:
            until(events, lambda event: isinstance(event, FiguresTaken) and event.step > 500)
            nodes = {
                number: ray.get(
                    actor.handle.__ray_call__.remote(
                        lambda _: ray.get_runtime_context().get_node_id()
                    )
                )
                for number, actor in observed.samplers._actors.items()  # type: ignore[attr-defined]
            }
            assert len(set(nodes.values())) == 2
            lost = next(number for number, node in nodes.items() if node == other.node_id)
            before = observed.sampler_ids
            cluster.remove_node(other, allow_graceful=False)
            seen = until(events, restarted)
            (event,) = [one for one in seen if isinstance(one, WorkerRestarted)]
            assert event.worker == lost
            until(events, both_play_on(observed.kept.progress.step + 200))
            assert observed.sampler_ids[1 - lost] == before[1 - lost]
            observed.kept.progress.stop()
            for _ in events:
                pass
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_the_driver_s_death_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = {**SMALL, "torso_hidden": "[16]", "steps": 4000, "checkpoint_every": 300}
    flags = [t for name, v in options.items() for t in (f"--{name.replace('_', '-')}", str(v))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "noisynet"]
    process = subprocess.Popen(
        [*command, "train", "cartpole", "--out", str(folder), *flags],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while checkpoint.newest(folder / "checkpoints") is None:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    saved = checkpoint.read_newest(folder / "checkpoints")
    assert saved is not None
    assert saved.step < 4000
    done = subprocess.run(
        [*command, "resume", str(folder)],
        capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "sampler actors start new games" in done.stdout
    assert "Done: 4,0" in done.stdout
    steps = [record["step"] for record in read_metrics(folder)]
    assert steps == sorted(steps)


def test_a_sampler_that_cannot_live_ends_the_run_with_a_reason_and_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_for_actors.py").write_text(
        "import os, gymnasium\n"
        "def build():\n"
        f"    if os.getpid() != {os.getpid()}:\n"
        '        raise OSError("no such level")\n'
        '    return gymnasium.make("CartPole-v1")\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = tmp_path / "run"
    with pytest.raises(RunError) as caught:
        samplers.start(small(environment="broken_for_actors:build"), folder)
    message = str(caught.value)
    assert "died 5 times in a row before its first fragment" in message
    assert "no such level" in message
    assert "the run was saved at step 0" in message
    assert checkpoint.newest(folder / "checkpoints") is not None


def test_more_samplers_than_cpus_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected at least 4000"):
        samplers.start(small(actors=4000), tmp_path / "run")
    assert not (tmp_path / "run").exists()
