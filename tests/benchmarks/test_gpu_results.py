"""What the pages say of a GPU is what the kept results have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.gpu import layers, training

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "gpu"


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text())


def page(name: str) -> str:
    return " ".join((ROOT / "docs" / name).read_text().split())


def test_the_tables_are_those_of_the_files() -> None:
    assert (RESULTS / "training.md").read_text() == training.markdown(read("training.json"))
    found = read("layers.json")
    assert (RESULTS / "layers.md").read_text() == layers.markdown(found["rows"])
    assert found["targets"] == layers.judged(found["rows"])


def test_what_a_graph_brings() -> None:
    parts = read("training.json")["parts"]
    update = {
        (row["batch"], row["execution"], row["precision"]): row["update_ms"]
        for row in parts["updates"]["rows"]
    }
    text = page("performance.md")
    assert "takes a ninth of the plain one's time at batch 32, and a third at 512" in text
    assert 1 / 9.5 < update[32, "graph", "float32"] / update[32, "plain", "float32"] < 1 / 8.5
    assert 1 / 3.5 < update[512, "graph", "float32"] / update[512, "plain", "float32"] < 1 / 2.5
    rate = {row["path"]: row["steps_per_second"] for row in parts["training"]["rows"]}
    assert "makes 7,600 steps a second, 2.6 times as many as by plain updates" in text
    assert round(rate["pqn-pong: graph"], -2) == 7600
    assert round(rate["pqn-pong: graph"] / rate["pqn-pong: plain"], 1) == 2.6


def test_pong_on_a_gpu() -> None:
    first, second = read("training.json")["parts"]["solve"]["rows"]
    text = page("performance.md")
    assert f"one was solved after {first['seconds']:.0f} seconds" in text
    assert first["ended"] == "solved"
    assert f"return of {second['last_mean_return']:.1f} after {second['seconds']:.0f} sec" in text
    assert second["ended"] == "time"


def test_what_the_kernels_bring() -> None:
    rows = {
        (row["name"], row["dtype"], row["mode"], row["batch"]): row["graph"]
        for row in read("layers.json")["rows"]
    }
    text = page("speed.md")
    eager = {
        (row["name"], row["dtype"], row["mode"], row["batch"]): row["eager"]["seconds"]["median"]
        for row in read("layers.json")["rows"]
    }
    # Draws per row of more than 64 rows are left to plain operations.
    called = [
        seconds / eager[name.replace("triton", "eager"), *rest]
        for (name, *rest), seconds in eager.items()
        if name.startswith("triton") and not (name.endswith("rows") and rest[-1] > 64)
    ]
    assert f"take {min(called):.1f} to {max(called):.1f} times as long as plain operation" in text

    def ratios(kind: str, batch: int | None = None) -> str:
        found = [
            graph["seconds"]["median"] / rows[f"eager-{kind}", *rest]["seconds"]["median"]
            for (name, *rest), graph in rows.items()
            if name == f"triton-{kind}" and batch in (None, rest[-1])
        ]
        return f"{min(found):.2f} to {max(found):.2f}"

    assert f"the kernels take {ratios('factorised')} of the time of plain operations" in text
    assert f"With a draw per row they take {ratios('factorised-rows', 32)} of it" in text
    assert f"independent noise they take {ratios('independent', 32)} of it at batch 32" in text
    assert f"and {ratios('independent', 128)} at 128" in text
    missed = [one["measured"] for one in read("layers.json")["targets"]]
    assert f"in a graph, is **missed**: {min(missed):.2f} to {max(missed):.2f}" in text
    compiled = [
        graph["ratio"]["median"]
        for (name, *_), graph in rows.items()
        if name.startswith("compiled-")
    ]
    bounds = f"{min(compiled):.2f} to {max(compiled):.2f}"
    assert f"`torch.compile` of the layer, without our kernels, takes {bounds} times" in text
