"""TensorBoard's event files: a run's figures, its config, and histograms of σ."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .tags import grouped

_BINS = 40


class EventFile:
    """One TensorBoard event file, written record by record.

    TensorBoard's own EventFileWriter works in a thread, which does not report a full disk, and
    names its file by the second, so that the file of a resumed run may sort before the earlier one.
    """

    def __init__(self, folder: Path) -> None:
        """Begin a file in a run's folder, under a name that sorts after the existing files."""
        # Slow to import, and only a writer needs it.
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        # protobuf creates its classes at import, so type checkers do not see them.
        event_module, self._protocol = cast("Any", event_pb2), cast("Any", summary_pb2)
        self._event = event_module.Event
        self._start = event_module.SessionLog(status=event_module.SessionLog.START)
        self._file = (folder / _next_name(folder)).open("xb")
        self._records = RecordWriter(self._file)
        self._append(self._event(wall_time=time.time(), file_version="brain.Event:2"))

    def start_again_at(self, step: int) -> None:
        """Make TensorBoard drop what earlier files hold from `step` on."""
        self._append(self._event(wall_time=time.time(), step=step, session_log=self._start))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Write figures, named as in metrics.jsonl, under grouped tags."""
        tags = grouped(figures).items()
        self._summarise(step, [self._value(tag=tag, simple_value=one) for tag, one in tags])

    def write_histograms(self, step: int, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write a histogram of each array, except of those that are not finite."""
        finite = {tag: one.ravel() for tag, one in values.items() if np.isfinite(one).all()}
        self._summarise(
            step, [self._value(tag=tag, histo=self._histogram(one)) for tag, one in finite.items()]
        )

    def describe(self, step: int, text: str, fields: Mapping[str, bool | float | str]) -> None:
        """Write the config, as text and as the fields by which TensorBoard compares runs."""
        from tensorboard.compat.proto import tensor_pb2, tensor_shape_pb2
        from tensorboard.plugins.hparams import summary_v2 as hparams
        from tensorboard.plugins.text import plugin_data_pb2

        tensors, shapes = cast("Any", tensor_pb2), cast("Any", tensor_shape_pb2)
        plugin = self._protocol.SummaryMetadata.PluginData(
            plugin_name="text",
            content=cast("Any", plugin_data_pb2).TextPluginData(version=0).SerializeToString(),
        )
        shown = tensors.TensorProto(
            dtype="DT_STRING",
            string_val=["".join(f"    {line}\n" for line in text.splitlines()).encode()],
            tensor_shape=shapes.TensorShapeProto(dim=[shapes.TensorShapeProto.Dim(size=1)]),
        )
        metadata = self._protocol.SummaryMetadata(plugin_data=plugin)
        self._summarise(
            step, [self._value(tag="config/text_summary", metadata=metadata, tensor=shown)]
        )
        for summary in (
            hparams.hparams_config_pb(
                hparams=[hparams.HParam(name) for name in fields],
                metrics=[hparams.Metric("games/mean_return")],
            ),
            hparams.hparams_pb(dict(fields)),
        ):
            self._append(self._event(wall_time=time.time(), step=step, summary=summary))

    def sync(self) -> None:
        """Flush everything to disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def _value(self) -> Any:
        return self._protocol.Summary.Value

    def _histogram(self, values: npt.NDArray[Any]) -> Any:
        counts, edges = np.histogram(values, _BINS)
        return self._protocol.HistogramProto(
            min=values.min(),
            max=values.max(),
            num=values.size,
            sum=values.sum(dtype=np.float64),
            sum_squares=np.square(values, dtype=np.float64).sum(),
            bucket_limit=edges[1:],
            bucket=counts,
        )

    def _summarise(self, step: int, values: list[Any]) -> None:
        if values:
            summary = self._protocol.Summary(value=values)
            self._append(self._event(wall_time=time.time(), step=step, summary=summary))

    def _append(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()


def _next_name(folder: Path) -> str:
    """Return a name that sorts after every event file in `folder`: they are read in this order."""
    second = int(time.time())
    for file in folder.glob("events.out.tfevents.*"):
        started = file.name.split(".")[3]
        if started.isdecimal():
            second = max(second, int(started) + 1)
    return f"events.out.tfevents.{second:010d}.{socket.gethostname()}.{os.getpid()}"
