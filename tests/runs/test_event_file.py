"""TensorBoard reads what an event file holds: figures in groups, the config, histograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from noisynet.runs import config
from noisynet.runs.metrics import MetricsWriter
from noisynet.runs.tags import grouped


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def test_figures_stand_in_groups_without_those_of_single_environments() -> None:
    figures = {
        "game/return": 1.0, "game/environment": 3, "loss": 0.5, "policy_loss": 0.1, "q": 2.0,
        "snr/q.0": 3.0, "sigma/q.0": 0.1, "noise/effective_epsilon": 0.2,
        "noise/effective_epsilon/env_0": 0.3, "dormant/q.0": 0.4, "time/elapsed": 5.0,
    }  # fmt: skip
    assert grouped(figures) == {
        "games/return": 1.0, "loss/loss": 0.5, "loss/policy_loss": 0.1, "learning/q": 2.0,
        "noise/snr/q.0": 3.0, "noise/sigma/q.0": 0.1, "noise/effective_epsilon": 0.2,
        "units/dormant/q.0": 0.4, "time/elapsed": 5.0,
    }  # fmt: skip


def test_the_config_is_text_and_what_runs_are_compared_by(tmp_path: Path) -> None:
    chosen = config.load("cartpole")
    with MetricsWriter(tmp_path) as writer:
        writer.describe(0, chosen.to_yaml(), chosen.effective_fields())
    found = read(tmp_path)
    (text,) = found.Tensors("config/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    assert "    learning_rate: 0.001\n" in shown.replace("      ", "    ")
    held = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(held).session_start_info  # pyright: ignore[reportAttributeAccessIssue]
    assert start.hparams["learning_rate"].number_value == 0.001
    assert start.hparams["torso_hidden"].string_value == "[128]"
    assert start.hparams["double"].bool_value is True
    assert "epsilon_start" not in start.hparams  # it acts with ε-greedy alone


def test_a_histogram_holds_every_value_and_nothing_of_what_is_not_finite(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(20, 50)).astype(np.float32)
    with MetricsWriter(tmp_path) as writer:
        writer.write_histograms(7, {"sigma/q.0": values, "sigma/bad": np.array([np.nan])})
    found = read(tmp_path)
    assert found.Tags()["histograms"] == ["sigma/q.0"]
    (event,) = found.Histograms("sigma/q.0")
    histogram = event.histogram_value
    assert event.step == 7
    assert histogram.num == sum(histogram.bucket) == 1000
    assert histogram.max == pytest.approx(values.max())
    assert histogram.sum == pytest.approx(values.sum(dtype=np.float64))
