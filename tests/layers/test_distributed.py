"""`DistributedDataParallel` on two processes: the same draw everywhere, or one for each rank."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

import noisynet
from noisynet.layers import Draw

from . import distributed_worker as worker

SCRIPT = Path(__file__).with_name("distributed_worker.py")
pytestmark = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()), reason="no gloo"
)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Run all policies on all ranks, and give what each rank told."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if sys.platform == "linux":
        # The machine's own name may lead nowhere.
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(worker.RANKS)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return [
        torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(worker.RANKS)
    ]


def load(net: nn.Module, parameters: list[Tensor]) -> None:
    with torch.no_grad():
        for mine, given in zip(net.parameters(), parameters, strict=True):
            mine.copy_(given)


def gradients(net: nn.Module, drawn: Draw, x: Tensor) -> list[Tensor]:
    with noisynet.using(net, drawn):
        return list(torch.autograd.grad(worker.loss_of(net, x), list(net.parameters())))


def whole_batch(step: int) -> Tensor:
    return torch.cat([worker.batch(step, rank) for rank in range(worker.RANKS)])


def equal(first: Draw, second: Draw) -> bool:
    return all(map(torch.equal, first.flats, second.flats))


def assert_close(got: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("policy", ["same", "apart", "same, fresh"])
def test_parameters_stay_equal_on_all_ranks(ranks: list[dict[str, Any]], policy: str) -> None:
    first, second = (told[policy] for told in ranks)
    for name in ("gradients", "parameters"):
        for mine, theirs in zip(first[name], second[name], strict=True):
            assert all(map(torch.equal, mine, theirs)), name
    assert not torch.equal(first["parameters"][0][0], first["parameters"][-1][0])


def test_what_is_held_is_not_broadcast(ranks: list[dict[str, Any]]) -> None:
    """Buffers are: from rank 0, at the start and before every forward."""
    for policy in ("same", "apart"):
        first, second = (told[policy] for told in ranks)
        assert equal(first["before"], first["wrapped"])
        assert equal(second["before"], second["wrapped"])
        assert not equal(first["wrapped"], second["wrapped"])


def test_the_seed_says_who_draws_what(ranks: list[dict[str, Any]]) -> None:
    for policy in ("same", "apart"):
        by_rank = [told[policy]["draws"] for told in ranks]
        for step, (mine, theirs) in enumerate(zip(*by_rank, strict=True)):
            assert equal(mine, theirs) == (policy == "same")
            assert not any(equal(mine, former) for former in by_rank[0][:step])
    # PyTorch's own generator agrees as well, as long as all ranks have used it alike.
    for mine, theirs in zip(*(told["same, fresh"]["states"] for told in ranks), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("policy", ["same", "apart"])
def test_gradients_are_the_mean_of_each_ranks_own(ranks: list[dict[str, Any]], policy: str) -> None:
    net = worker.new_net(seed=5)
    for step in range(worker.STEPS):
        load(net, ranks[0][policy]["parameters"][step])
        by_rank = [
            gradients(net, told[policy]["draws"][step], worker.batch(step, rank))
            for rank, told in enumerate(ranks)
        ]
        mean = [torch.stack(parts).mean(0) for parts in zip(*by_rank, strict=True)]
        assert_close(ranks[0][policy]["gradients"][step], mean)


def test_the_same_draw_everywhere_is_one_process_with_the_whole_batch(
    ranks: list[dict[str, Any]],
) -> None:
    net = worker.new_net(seed=5)
    told = ranks[0]["same"]
    for step in range(worker.STEPS):
        load(net, told["parameters"][step])
        whole = whole_batch(step)
        assert_close(told["gradients"][step], gradients(net, told["draws"][step], whole))
    # Fresh noise from generators in one state: the next draw of each is the same.
    told = ranks[0]["same, fresh"]
    for step in range(worker.STEPS):
        load(net, told["parameters"][step])
        torch.set_rng_state(told["states"][step])
        loss = worker.loss_of(net, whole_batch(step))
        expected = torch.autograd.grad(loss, list(net.parameters()))
        assert_close(told["gradients"][step], list(expected))


def test_a_draw_per_rank_is_one_process_with_a_draw_for_each_part(
    ranks: list[dict[str, Any]],
) -> None:
    net = worker.new_net(seed=5)
    for step in range(worker.STEPS):
        load(net, ranks[0]["apart"]["parameters"][step])
        draws = [told["apart"]["draws"][step] for told in ranks]
        flats = [torch.stack(parts) for parts in zip(*(d.flats for d in draws), strict=True)]
        of_rows = Draw(tuple(flats), draws[0].slots)
        x = torch.stack([worker.batch(step, rank) for rank in range(worker.RANKS)], dim=1)
        assert_close(ranks[0]["apart"]["gradients"][step], gradients(net, of_rows, x))
