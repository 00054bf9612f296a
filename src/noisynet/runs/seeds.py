"""Seeds: one for a run, and one derived from it for each named source of randomness."""

from __future__ import annotations

import zlib

import numpy as np

SEEDS = 2_000_000_000
"""Seeds are from 0 to this, exclusive: a range that every library in use accepts."""


def stream(seed: int, name: str) -> int:
    """Return the seed of one named source of randomness, independent of all others."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(name.encode())])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
