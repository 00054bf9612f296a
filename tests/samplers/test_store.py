"""A full object store, with a full disk behind it: one line, and what was learned is saved."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noisynet import samplers
from noisynet.runs import RunError, checkpoint, config

pytest.importorskip("ray", reason="Ray is an extra")

pytestmark = [
    pytest.mark.slow,
    # Ray leaves sockets and processes to its own clean-up.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

FIELDS = {
    "actors": 1, "environments": 4, "steps": 1000, "torso_hidden": [4], "head_hidden": 4,
    "threads": 1,
}  # fmt: skip
REPLAY = {"warmup_steps": 32, "replay_capacity": 160, "batch_size": 4, "fragment_steps": 32}

LARGE = """
import gymnasium, numpy

class Large(gymnasium.ObservationWrapper):
    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1"))
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (200_000,), numpy.float32)

    def observation(self, observation):
        return numpy.full(200_000, 0.1, numpy.float32)
"""

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

head = {
    "num_cpus": 2, "include_dashboard": False, "object_store_memory": 75 * 2**20,
    # Whatever does not fit into memory finds the disk full.
    "_system_config": {"local_fs_capacity_threshold": 1e-6},
}
cluster = Cluster(initialize_head=True, head_node_args=head)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("large")
    (folder / "large_for_actors.py").write_text(LARGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder))
        nodes = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert nodes.stdin is not None
        assert nodes.stdout is not None
        yield nodes.stdout.readline().strip()
        nodes.stdin.close()
        nodes.stdout.close()
        nodes.wait(120)


def refused(folder: Path, preset: str, address: str, **overrides: Any) -> str:
    with pytest.raises(RunError) as caught:
        samplers.start(config.load(preset, {**FIELDS, **overrides}), folder, address=address)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(
        "Ray's object store (79 MB on all nodes) and the disk behind it are full"
    )
    assert said.endswith("; the run was saved at step 0")
    assert checkpoint.read_newest(folder / "checkpoints") is not None
    return said


def test_weights_without_room(address: str, tmp_path: Path) -> None:
    said = refused(tmp_path / "run", "cartpole", address, torso_hidden=[4600, 4600], **REPLAY)
    assert "expected room for weights of 8" in said


@pytest.mark.parametrize(
    ("preset", "fields"),
    [
        ("cartpole", REPLAY),
        ("cartpole", {**REPLAY, "replay_shards": 1}),
        ("cartpole-noisy-a2c", {"rollout_steps": 32}),
    ],
)
def test_fragments_without_room(
    address: str, tmp_path: Path, preset: str, fields: dict[str, Any]
) -> None:
    said = refused(
        tmp_path / "run", preset, address, environment="large_for_actors:Large", **fields
    )
    assert "expected room for a fragment" in said
