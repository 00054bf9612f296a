"""What the tests of several rooms share: pages and examples are run as their readers run them."""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A busy machine is no fault of what is tested.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# A shell that starts the tests in the background, and nohup, leave signals ignored in all that the
# tests start.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

ROOT = Path(__file__).resolve().parents[1]

RunPage = Callable[[str], dict[str, Any]]
RunExample = Callable[..., subprocess.CompletedProcess[str]]
WriteRun = Callable[..., Path]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(exitstatus: int) -> None:
    """Leave without taking Python apart where Ray was used in this process.

    `ray.shutdown` leaves threads of Ray's own that go on running (`gcs_client_io_s`,
    `event_engine`; after a sampler was killed `worker.io` too), and taking the process down under
    them has ended a run whose tests had all passed with a segmentation fault. By then the verdict
    stands.
    """
    if "ray" in sys.modules:
        atexit.register(_leave, int(exitstatus))


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    # What pytest raises after the verdict, such as a resource left open, has been printed by now.
    os._exit(1 if hasattr(sys, "last_value") else status)


@pytest.fixture
def run_page() -> RunPage:
    """Run a page's blocks of Python one after the other; gives the names that they made.

    Of the doctor's reports that a page makes, as `before` and `after`, it shows lines under these
    words, and each must be one that the doctor says today.
    """

    def run(name: str) -> dict[str, Any]:
        page = ROOT / "docs" / name
        text = page.read_text()
        namespace: dict[str, Any] = {"__name__": "page"}
        blocks = list(re.finditer(r"^```py(?:thon)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        assert blocks, f"{name} has no block of Python"
        for block in blocks:
            # Blank lines in front make a traceback's line numbers those of the page.
            code = "\n" * text.count("\n", 0, block.start(1)) + block[1]
            exec(compile(code, str(page), "exec"), namespace)
        for which in {"before", "after"} & namespace.keys():
            said = {f"{one.status} {one.name}" for one in namespace[which]}
            shown = _shown(text, which)
            assert shown, f"{name} shows nothing of {which}"
            assert shown <= said
        return namespace

    return run


def _shown(text: str, which: str) -> set[str]:
    """Give status and name of each line of the doctor that stands under a word of a page."""
    told = "\n".join(re.findall(r"^```text\n(.*?^)```", text, re.MULTILINE | re.DOTALL))
    parts = re.findall(rf"^{which}\n(.*?)(?:^$|\Z)", told, re.MULTILINE | re.DOTALL)
    lines = "".join(parts).splitlines()
    return {" ".join(line.split(":")[0].split(None, 1)) for line in lines}


@pytest.fixture
def run_example(tmp_path: Path) -> RunExample:
    """Run examples/NAME with options, in a folder of its own: `tmp_path`."""

    def run(name: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, ROOT / "examples" / name, *options],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    return run


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Write a run's config and metrics as training does, with returns that are known."""

    def write(
        name: str,
        returns: list[float],
        *,
        preset: str = "cartpole",
        every: int = 100,
        after: str = "",
        **fields: Any,
    ) -> Path:
        from noisynet.runs import RunFolder, config

        chosen = config.load(preset, {"steps": 10_000, **fields})
        path = tmp_path / name
        with RunFolder.create(path, chosen.to_yaml()):
            lines = []
            for number, one in enumerate(returns, start=1):
                last = returns[max(number - chosen.training.solved_games, 0) : number]
                lines.append(
                    {
                        "step": number * every,
                        "game/number": number,
                        "game/return": one,
                        "game/mean_return": sum(last) / len(last),
                        "time/elapsed": number * 1.5,
                    }
                )
            text = "".join(json.dumps(line) + "\n" for line in lines) + after
            (path / "metrics.jsonl").write_text(text)
        return path

    return write
