"""What a commit of a replay says, as plain values that fit JSON, and reading it back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from .files import PrioritySnapshots, ReplayDamaged, open_ring
from .prioritized import PrioritizedSampler
from .ring import Ring, RingShape, whole

FORMAT = 1
"""Version of the files and of the state that `FrameReplay.commit` returns."""


def ring_state(ring: Ring, generator: np.random.Generator) -> dict[str, object]:
    """Return the state of a ring whose files are on disk."""
    shape = ring.shape
    return {
        "format": FORMAT,
        "capacity": shape.capacity,
        "environments": shape.environments,
        "frame_shape": list(shape.frame_shape),
        "frame_dtype": shape.frame_dtype.str,
        "stack": shape.stack,
        "slack": shape.slack,
        "head": ring.head,
        "generator": generator.bit_generator.state,
        "fingerprint": ring.fingerprint(),
    }


def read_ring(folder: Path, state: Mapping[str, object]) -> tuple[Ring, np.random.Generator]:
    """Return the ring and the generator that gave `state`. Raises ReplayDamaged."""
    if state.get("format") != FORMAT:
        got = state.get("format")
        raise ReplayDamaged(f"replay state: got format {got!r}, expected {FORMAT}")
    try:
        shape = RingShape(
            capacity=cast(int, state["capacity"]),
            environments=cast(int, state["environments"]),
            frame_shape=tuple(cast(list[int], state["frame_shape"])),
            frame_dtype=np.dtype(cast(str, state["frame_dtype"])),
            stack=cast(int, state["stack"]),
            slack=whole("slack", state["slack"], 1),
        )
        head = whole("head", state["head"], 0)
        bits = np.random.PCG64()
        bits.state = cast(Any, state["generator"])
        fingerprint = state["fingerprint"]
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise ReplayDamaged(f"replay state: {type(error).__name__}: {error}") from error
    ring = open_ring(shape, folder, head, fingerprint, priorities="priorities" in state)
    return ring, np.random.Generator(bits)


def read_priorities(
    folder: Path, state: Mapping[str, object], ring: Ring
) -> tuple[PrioritizedSampler, PrioritySnapshots]:
    """Return the sampler that gave `state`, and its files. Raises ReplayDamaged."""
    try:
        part = cast(Mapping[str, object], state["priorities"])
        number = whole("file", part["file"], 0)
        if number > 1:
            raise ValueError(f"file: got {number}, expected 0 or 1")
        snapshots = PrioritySnapshots(folder, number)
        leaves = snapshots.read(part["checksum"])
        return PrioritizedSampler.restore(ring, part, leaves), snapshots
    except ReplayDamaged:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ReplayDamaged(f"replay state: {type(error).__name__}: {error}") from error
