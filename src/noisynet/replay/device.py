"""A replay with a copy of its frames on the network's device, where each is moved once.

It needs torch, so `noisynet.replay` does not import it. Suffixes: B samples, S frames of a stack.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .batch import Batch
from .frame_replay import FrameReplay
from .ring import Integers, Numbers, RingShape
from .sampling import locate_stack, read_windows

_CHUNK_BYTES = 1 << 26  # of frames that are moved at a time when a ring is taken over


class _Memory:
    """The tensors of one batch on the device, at addresses that stay the same from batch to batch.

    Everything except the observations lies in one block of bytes, which is sent in one copy.
    """

    def __init__(self, shape: RingShape, frames: Tensor, batch_size: int, weighted: bool) -> None:
        device = frames.device
        self.signature = (shape, batch_size, weighted, device)
        self.observations = torch.empty(
            (2, batch_size, *shape.observation_shape), dtype=frames.dtype, device=device
        )
        places = 2 * batch_size * shape.stack
        # The widest type first, so that each part begins at a multiple of its item size.
        self._parts = [
            (np.dtype(np.int64), places),
            (np.dtype(np.int64), batch_size),
            *[(np.dtype(np.float32), batch_size)] * (3 if weighted else 2),
        ]
        size = sum(dtype.itemsize * count for dtype, count in self._parts)
        self._parcel = torch.empty(size, dtype=torch.uint8, device=device)
        place, action, *numbers = self._views(self._parcel)
        self.place, self.action_tm1 = place, action
        self.return_t, self.discount_t = numbers[0], numbers[1]
        self.weights = numbers[2] if weighted else None

    def _views(self, parcel: Tensor) -> list[Tensor]:
        views, start = [], 0
        for dtype, count in self._parts:
            end = start + dtype.itemsize * count
            views.append(parcel[start:end].view(_torch_type(dtype)))
            start = end
        return views

    def send(self, *arrays: npt.NDArray[np.generic]) -> None:
        """Copy places, actions, returns, discounts and perhaps weights to the device."""
        # New memory for each parcel: torch reuses page-locked memory only after the copy out of it
        # has finished, so nothing has to wait for the copy here.
        parcel = torch.empty(self._parcel.shape, dtype=torch.uint8, pin_memory=self._parcel.is_cuda)
        for view, array in zip(self._views(parcel), arrays, strict=True):
            view.numpy()[:] = array.reshape(-1)
        self._parcel.copy_(parcel, non_blocking=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeviceBatch(Batch[Tensor]):
    """A batch that carries the memory of which its tensors are views."""

    memory: _Memory


class DeviceReplay(FrameReplay):
    """A `FrameReplay` that keeps a copy of its frames on a device, and samples there.

    The ring, and so every commit, stays in memory or in files. A frame is copied to the device only
    once, when it is added. Of a sample, only the places of its frames are sent, with actions,
    returns, discounts and weights; the stacks are assembled on the device. `sample` draws the same
    records as the replay that was taken over, and returns the same batches, as tensors on the
    device; with `out`, all tensors of the earlier batch are overwritten.

    Args:
        replay: the replay that is taken over; it must not be used afterwards.
        device: where the copies go; memory for all frames of the ring is allocated at once.

    Raises:
        RuntimeError: the device has too little memory.
    """

    def __init__(self, replay: FrameReplay, device: torch.device) -> None:
        self._start(replay._ring, replay._generator, replay._sampler, replay._snapshots)
        self._committed = replay._committed
        shape = self._ring.shape
        records, numbers = self._ring.frames.shape
        # An extra frame of zeros stands for those before an episode's first.
        self._nothing = records
        self._frames = torch.zeros(
            records + 1, numbers, dtype=_torch_type(shape.frame_dtype), device=device
        )
        filled = min(self._ring.head, shape.slots) * shape.environments
        chunk = max(1, _CHUNK_BYTES // (numbers * shape.frame_dtype.itemsize))
        for start in range(0, filled, chunk):
            end = min(start + chunk, filled)
            self._frames[start:end].copy_(torch.from_numpy(self._ring.frames[start:end]))

    def _append(self, records: dict[str, npt.NDArray[np.generic]]) -> None:
        shape = self._ring.shape
        start = self._ring.head % shape.slots * shape.environments
        super()._append(records)
        rows = slice(start, start + shape.environments)
        stored = torch.from_numpy(self._ring.frames[rows])
        if self._frames.is_cuda:
            stored = stored.pin_memory()
        self._frames[rows].copy_(stored, non_blocking=True)

    def _gather(
        self,
        record_B: Integers,
        n_step: int,
        discount: float,
        out: Batch[Any] | None,
        weights: Numbers | None,
    ) -> Batch[Tensor]:
        memory = self._memory(len(record_B), weights is not None, out)
        next_B, action_B, return_B, discount_B = read_windows(
            self._ring, record_B, n_step, discount
        )
        places_2BS = np.stack([self._places(record_B), self._places(next_B)])
        weighted = [] if weights is None else [weights]
        memory.send(places_2BS, action_B, return_B, discount_B, *weighted)
        stacks = memory.observations.view(places_2BS.size, -1)
        torch.index_select(self._frames, 0, memory.place, out=stacks)
        return _DeviceBatch(
            observation_tm1=memory.observations[0],
            action_tm1=memory.action_tm1,
            return_t=memory.return_t,
            discount_t=memory.discount_t,
            observation_t=memory.observations[1],
            weights=memory.weights,
            indices=record_B,
            memory=memory,
        )

    def _memory(self, batch_size: int, weighted: bool, out: Batch[Any] | None) -> _Memory:
        if out is None:
            return _Memory(self._ring.shape, self._frames, batch_size, weighted)
        signature = (self._ring.shape, batch_size, weighted, self._frames.device)
        if not isinstance(out, _DeviceBatch) or out.memory.signature != signature:
            raise ValueError("out: got a batch of another size or replay, expected one of this")
        return out.memory

    def _places(self, record_B: Integers) -> Integers:
        """Return where the frames of each record's stack lie, (B, S), oldest first."""
        index_BS, empty_BS = locate_stack(self._ring, record_B)
        return np.where(empty_BS, self._nothing, index_BS)


def _torch_type(dtype: np.dtype[np.generic]) -> torch.dtype:
    """Return torch's dtype for a numpy dtype; raises TypeError if there is none."""
    return torch.from_numpy(np.empty(0, dtype)).dtype
