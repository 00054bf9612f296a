"""On a GPU: an update captured in a CUDA graph is the plain one, and draws anew at each replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from noisynet import held
from noisynet.agents import LossNotFinite, QLearning, StaticUpdates
from noisynet.agents.device_graph import DeviceGraph
from noisynet.assemble import start
from noisynet.assemble.agents import step_size
from noisynet.replay import FrameReplay
from noisynet.replay.device import DeviceReplay
from noisynet.runs import Config, config, read_metrics

from . import small_agents
from .small_agents import built, make_batch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def settings(**overrides: Any) -> Config:
    return small_agents.settings(**{"device": "cuda", **overrides})


def make_agent(**overrides: Any) -> QLearning:
    return built(settings(**overrides))


@pytest.mark.parametrize("devices", [("cpu", "cuda"), ("cuda", "cpu")])
def test_an_agent_goes_on_on_another_device(devices: tuple[str, str]) -> None:
    before, after = (make_agent(device=device) for device in devices)
    before.update(make_batch(0))
    after.restore(*before.state())
    after.update(make_batch(1))
    assert after.updates == 2
    assert after.is_finite()


def test_every_run_counts_and_later_ones_launch_a_graph() -> None:
    count = torch.zeros(1, device="cuda")
    graph = DeviceGraph(lambda: count.add_(1), torch.device("cuda"))  # type: ignore[arg-type]
    for number in range(1, 8):
        graph.run()
        assert count.item() == number
    assert graph._graph is not None


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"noise_kind": "independent"},
        {"exploration": "epsilon"},
        {"atoms": 11},
        {"optimizer": "rmsprop"},
        {"precision": "bfloat16"},
        {"final_learning_rate": 0.0, "warmup_steps": 150, "steps": 200},
    ],
    ids=str,
)
def test_captured_updates_are_the_plain_ones(overrides: dict[str, Any]) -> None:
    chosen = settings(**overrides)
    plain, static = built(chosen), built(chosen)
    size = step_size(chosen)
    updates = StaticUpdates(static, size(0))
    losses: list[float] = []
    for number in range(10):
        losses.append(plain.update(make_batch(number), size(4 * number)).loss)
        updates.update(make_batch(number), size(4 * number))
    assert updates._graph._graph is not None
    torch.testing.assert_close(
        torch.tensor(losses), torch.tensor(updates.losses()), rtol=1e-2, atol=1e-4
    )
    for one, other in zip(plain.online.parameters(), static.online.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)
    if plain.noise is not None:
        # The same draws, to the last: replays go on with the generators of the plain runs.
        pair = held(plain.online), held(static.online)
        assert pair[0] is not None
        assert pair[1] is not None
        for one, other in zip(pair[0].flats, pair[1].flats, strict=True):
            torch.testing.assert_close(one, other)


def test_a_captured_update_waits_for_nothing() -> None:
    updates = StaticUpdates(make_agent())
    for number in range(5):
        updates.update(make_batch(number))
    torch.cuda.set_sync_debug_mode("error")
    try:
        updates.update(make_batch(5))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(updates.losses()) == 6


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_captured_update_that_fails_leaves_the_parameters(optimizer: str) -> None:
    agent = make_agent(optimizer=optimizer)
    updates = StaticUpdates(agent)
    for number in range(6):
        updates.update(make_batch(number))
    before = [parameter.detach().clone() for parameter in agent.online.parameters()]
    broken = make_batch(6)
    broken.return_t[0] = np.nan
    for batch in (broken, make_batch(7)):
        updates.update(batch)
    with pytest.raises(LossNotFinite, match="at update 7"):
        updates.losses()
    for one, other in zip(before, agent.online.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("stack", [1, 4])
def test_frames_on_the_gpu_make_the_batches_of_the_host(stack: int) -> None:
    def make() -> FrameReplay:
        return FrameReplay(
            capacity=80, environments=2, frame_shape=(5, 3), frame_dtype=np.uint8, stack=stack,
            slack=0, seed=1,
        )  # fmt: skip

    host, there = make(), DeviceReplay(make(), torch.device("cuda"))
    generator = np.random.Generator(np.random.PCG64(0))
    out = None
    for number in range(120):
        ended = generator.random(2) < 0.1
        frame = generator.integers(256, size=(2, 5, 3), dtype=np.uint8)
        action, reward = generator.integers(4, size=2), generator.normal(size=2)
        for replay in (host, there):
            replay.add(
                frame, action, reward, ended, np.zeros(2, bool), np.full(2, number == 0),
                np.zeros(2, bool),
            )  # fmt: skip
        if number < 10:
            continue
        batch, out = host.sample(16, 3, 0.9), there.sample(16, 3, 0.9, out=out)
        for name in ("observation_tm1", "action_tm1", "return_t", "discount_t", "observation_t"):
            np.testing.assert_array_equal(getattr(out, name).cpu().numpy(), getattr(batch, name))


@pytest.mark.parametrize("overlap", [False, True])
def test_a_run_takes_the_whole_path(tmp_path: Path, overlap: bool) -> None:
    chosen = config.load(
        "cartpole",
        {
            "device": "cuda", "execution": "graph", "replay_device": "device", "overlap": overlap,
            "steps": 2000, "warmup_steps": 300, "log_every": 20, "replay_capacity": 1000,
        },
    )  # fmt: skip
    outcome = start(chosen, tmp_path / "run")
    losses = [line["loss"] for line in read_metrics(outcome.folder) if "loss" in line]
    assert len(losses) > 5
    assert np.isfinite(losses).all()
