"""A replay whose frames also lie where the network computes: each is moved there once.

It needs torch, so `noisynet.replay` does not bring it by itself. Suffixes: B samples, S frames of a
stack, N steps of a window.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from noisynet.replay.frames import FrameReplay
from noisynet.replay.nstep import mark_taken, n_step_return
from noisynet.replay.prioritized import importance_weights
from noisynet.replay.records import check_fraction
from noisynet.replay.ring import FIRST, TERMINATED, TRUNCATED, RingShape, whole
from noisynet.replay.transitions import draw_samplable

_CHUNK_BYTES = 1 << 26  # frames that are moved in one go when a ring is taken over


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBatch:
    """Transitions of m ≤ n steps on the device, one per row: `Batch`, as tensors.

    Overwritten when it is given back as `out`.
    """

    observation_tm1: Tensor
    """(B, stack, *frame_shape), oldest frame first; (B, *frame_shape) when stack is 1."""
    action_tm1: Tensor
    """(B,), int64."""
    return_t: Tensor
    """(B,), float32: Σ γ^k r over the m steps."""
    discount_t: Tensor
    """(B,), float32: γ^m, or 0 if the window was terminated."""
    observation_t: Tensor
    """Like `observation_tm1`, m steps later; any observation where `discount_t` is 0."""
    weights: Tensor | None
    """(B,), float32: importance weights, at most 1; None unless drawn by priority."""
    indices: npt.NDArray[np.int64]
    """(B,) numbers of the first records, on the host, as `Batch` has them."""
    memory: "BatchMemory"
    """What the tensors above are views of."""


class BatchMemory:
    """The tensors of one batch on the device: they stay where they are while batches come and go.

    Everything but the observations lies in one parcel of bytes, which is sent in one copy.
    """

    def __init__(self, shape: RingShape, frames: Tensor, batch_size: int, weighted: bool) -> None:
        stacked = (shape.stack, *shape.frame_shape) if shape.stack > 1 else shape.frame_shape
        device = frames.device
        self.signature = (shape, batch_size, weighted, device)
        self.observations = torch.empty(
            (2, batch_size, *stacked), dtype=frames.dtype, device=device
        )
        places = 2 * batch_size * shape.stack
        # The widest first, so that each part begins at a multiple of its size.
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
        # New memory for each parcel: torch gives page-locked memory to somebody else only after
        # the copy out of it is over, so that nobody has to wait for it here.
        parcel = torch.empty(self._parcel.shape, dtype=torch.uint8, pin_memory=self._parcel.is_cuda)
        for view, array in zip(self._views(parcel), arrays, strict=True):
            view.numpy()[:] = array.reshape(-1)
        self._parcel.copy_(parcel, non_blocking=True)


class DeviceReplay(FrameReplay):
    """A `FrameReplay` that keeps a copy of its frames on a device, and samples there.

    The ring stays where it is, in memory or in files, and with it every commit. A frame goes to
    the device when it is added, and never again; of a sample only the places of its frames travel,
    with actions, returns and weights, and the stacks are put together on the device. The same
    records are drawn as by the replay that was taken over, and the same batches come of them.

    Args:
        replay: what is taken over; it must not be used any more.
        device: where the frames go; all that the ring can hold are allocated at once.

    Raises:
        RuntimeError: the device has too little memory.
    """

    def __init__(self, replay: FrameReplay, device: torch.device) -> None:
        self._start(replay._ring, replay._generator, replay._sampler, replay._snapshots)
        self._committed = replay._committed
        shape = self._ring.shape
        records, numbers = self._ring.frames.shape
        # One more, of zeros: it stands for the frames before an episode's first.
        self._nothing = records
        self._frames = torch.zeros(
            records + 1, numbers, dtype=_torch_type(shape.frame_dtype), device=device
        )
        filled = min(self._ring.head, shape.slots) * shape.environments
        chunk = max(1, _CHUNK_BYTES // (numbers * shape.frame_dtype.itemsize))
        for start in range(0, filled, chunk):
            end = min(start + chunk, filled)
            self._frames[start:end].copy_(torch.from_numpy(self._ring.frames[start:end]))

    @classmethod
    def reopen(
        cls,
        folder: Path,
        state: Mapping[str, object],
        device: torch.device = torch.device("cpu"),  # noqa: B008 - a value
    ) -> "DeviceReplay":
        """Return the replay as it was at the commit that gave `state`; see `FrameReplay.reopen`."""
        return cls(FrameReplay.reopen(folder, state), device)

    @staticmethod
    def device_bytes(
        *, records: int, frame_shape: tuple[int, ...], frame_dtype: npt.DTypeLike
    ) -> int:
        """Return the bytes of device memory that the frames of that many records take."""
        return (records + 1) * math.prod(frame_shape) * np.dtype(frame_dtype).itemsize

    def add(
        self,
        frame: npt.NDArray[np.generic],
        action: npt.NDArray[np.integer],
        reward: npt.NDArray[np.number],
        terminated: npt.NDArray[np.bool_],
        truncated: npt.NDArray[np.bool_],
        first: npt.NDArray[np.bool_],
        ignored: npt.NDArray[np.bool_],
    ) -> None:
        """Add one record per environment, as `FrameReplay.add` does, and move its frames."""
        shape = self._ring.shape
        start = self._ring.head % shape.slots * shape.environments
        super().add(frame, action, reward, terminated, truncated, first, ignored)
        rows = slice(start, start + shape.environments)
        stored = torch.from_numpy(self._ring.frames[rows])
        if self._frames.is_cuda:
            stored = stored.pin_memory()
        self._frames[rows].copy_(stored, non_blocking=True)

    def sample_on_device(
        self,
        batch_size: int,
        n_step: int,
        discount: float,
        *,
        out: DeviceBatch | None = None,
        beta: float | None = None,
    ) -> DeviceBatch:
        """Draw the transitions that `sample` would draw, as tensors on the device.

        Args:
            batch_size: rows of the batch.
            n_step: the n of n-step returns, in steps.
            discount: γ, per step.
            out: an earlier batch of the same size that is no longer needed: its tensors are
                overwritten, and are those of the new batch.
            beta: β of the importance weights; only, and always, for a replay with priorities.

        Raises:
            ValueError: a bad argument.
            RuntimeError: nothing can be sampled yet (see `can_sample`).
        """
        _ = whole("batch_size", batch_size, 1)
        ring, shape = self._ring, self._ring.shape
        shape.check_n_step(n_step)
        check_fraction("discount", discount)
        if (self._sampler is None) != (beta is None):
            expected = "None: this replay has no" if self._sampler is None else "a number: it has"
            raise ValueError(f"beta: got {beta!r}, expected {expected} priorities")
        memory = self._memory(batch_size, out)
        weights: list[npt.NDArray[np.generic]] = []
        if self._sampler is None:
            step_B, environment_B = draw_samplable(ring, self._generator, batch_size, n_step)
        else:
            assert beta is not None
            check_fraction("beta", beta)
            drawn = self._sampler.draw(self._generator, batch_size, n_step)
            step_B, environment_B, priority_B = drawn
            weights.append(importance_weights(priority_B, beta))
        index_BN = ring.index(step_B[:, None] + np.arange(n_step), environment_B[:, None])
        flags_BN = ring.flags[index_BN]
        return_B, discount_B, steps_B = n_step_return(
            ring.reward[index_BN], flags_BN & TERMINATED != 0, flags_BN & TRUNCATED != 0, discount
        )
        # After a termination the next record may not be there yet: the newest stands in.
        next_B = np.minimum(step_B + steps_B, ring.head - 1)
        places_2BS = np.stack(
            [self._places(step_B, environment_B), self._places(next_B, environment_B)]
        )
        memory.send(places_2BS, ring.action[index_BN[:, 0]], return_B, discount_B, *weights)
        stacks = memory.observations.view(places_2BS.size, -1)
        torch.index_select(self._frames, 0, memory.place, out=stacks)
        return DeviceBatch(
            observation_tm1=memory.observations[0],
            action_tm1=memory.action_tm1,
            return_t=memory.return_t,
            discount_t=memory.discount_t,
            observation_t=memory.observations[1],
            weights=memory.weights,
            indices=step_B * shape.environments + environment_B,
            memory=memory,
        )

    def _memory(self, batch_size: int, out: DeviceBatch | None) -> BatchMemory:
        if out is None:
            weighted = self._sampler is not None
            return BatchMemory(self._ring.shape, self._frames, batch_size, weighted)
        signature = (self._ring.shape, batch_size, self._sampler is not None, self._frames.device)
        if out.memory.signature != signature:
            raise ValueError("out: got a batch of another size or replay, expected one of this")
        return out.memory

    def _places(
        self, step_B: npt.NDArray[np.int64], environment_B: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return where the frames of each record's stack lie, (B, S), oldest first."""
        ring, stack = self._ring, self._ring.shape.stack
        place_BS = ring.index(step_B[:, None] + np.arange(1 - stack, 1), environment_B[:, None])
        newest_first_BS = ring.flags_between(step_B, environment_B, stack - 1, 0)[:, ::-1]
        of_episode_BS = mark_taken(newest_first_BS & FIRST != 0)[:, ::-1]
        return np.where(of_episode_BS, place_BS, self._nothing)


def _torch_type(dtype: np.dtype[np.generic]) -> torch.dtype:
    """Return torch's name of a numpy type; raises TypeError where it has none."""
    return torch.from_numpy(np.empty(0, dtype)).dtype
