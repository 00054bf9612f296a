"""Run other libraries' own tests with noisynet in the place of their classes, and count.

    python -m benchmarks.hosts.peer_suites --peer stable_baselines3 --machine "…"
    python -m benchmarks.hosts.peer_suites --peer torchrl --folder CHECKOUT --machine "…"

The peer must be installed, with pytest and what its tests need. Where its source distribution has
the tests, that of the installed version is downloaded; else --folder names a checkout, which is
only read. `torch` needs neither: its checks are in tests/peers/test_modules.py. peer_plugin.py has
what is replaced. Tests that fail run once more with nothing replaced, which shows whose failure it
is. Results go to results/hosts/peer_suites.json, the page's table beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..provenance import RESULTS, provenance, write_json
from ..tables import markdown_table

KEPT = RESULTS / "hosts" / "peer_suites.json"
ROOT = Path(__file__).parents[2]
COUNTED = ("passed", "failed", "skipped", "not touching")
THEIRS = "fails with the peer's own class too"
UNEXPLAINED = "unexplained"

Tests = dict[str, dict[str, Any]]
"""The record of each test, such as its outcome and its error, by the test's name."""


@dataclass(frozen=True)
class Suite:
    """A peer's tests, and which of them are about what is replaced."""

    package: str
    replaced: str
    tests: tuple[str, ...]
    """Files, and folders of test files, in the peer's repository."""
    naming: str = ""
    """A pattern: only files whose text matches it are run."""
    select: tuple[str, ...] = ()
    """Further arguments of pytest."""
    in_sdist: bool = False
    own: str = ""
    """A file beside this one that applies the peer's tests to models of ours; it alone is run."""
    reasons: tuple[tuple[str, str], ...] = ()
    """A pattern of a failed test's name and error, and why it fails."""


# Tests of other algorithms, and of environments in processes, which involve no policy.
_LEFT_OUT = ("SAC", "TD3", "DDPG", "TQC", "TRPO", "ARS", "test_vec_envs")
_OTHERS = ("-k", " and ".join(f"not {name}" for name in _LEFT_OUT))
_SHORT = "asks for a score after 500 to 2,000 steps; noise in all layers needs more"
_SB3_REASONS = (
    ("test_identity|test_performance_her|test_eval_success", _SHORT),
    ("test_distributions", "expects two forwards to agree; outside a rollout each draws anew"),
    ("test_infinite_horizon", "expects a value within 2 %, which is read under noise"),
    (
        "test_image_like_input",
        "expects an AssertionError; ours is a ValueError that names the cure",
    ),
    ("test_vec_with_ppo", "has frames flattened, which ours asks to be said (`FlattenExtractor`)"),
    ("test_warn_buffer", "expects no warning; ours warns of the ε-greedy left on"),
    ("test_ppo_warnings", "knows a perceptron by the name of the host's class"),
    (
        "target_net.*QRDQN",
        "looks for a change of 5e-7, which its `allclose` does not see in σ = 0.06",
    ),
)
SUITES = {
    "torch": Suite(
        "torch",
        "`Linear`, `Conv1d`, `Conv2d`, their lazy variants, `LSTMCell`, `GRUCell`",
        ("tests/peers/test_modules.py",),
        select=("-m", "peers"),
    ),
    "stable_baselines3": Suite(
        "stable-baselines3",
        'the policies that `"MlpPolicy"` and its siblings name in DQN, PPO, A2C',
        ("tests",),
        naming=r"\b(DQN|PPO|A2C)\b",
        select=_OTHERS,
        in_sdist=True,
        reasons=_SB3_REASONS,
    ),
    "sb3_contrib": Suite(
        "sb3-contrib",
        "the same in QR-DQN",
        ("tests",),
        naming=r"\bQRDQN\b",
        select=_OTHERS,
        in_sdist=True,
        reasons=_SB3_REASONS,
    ),
    "pfrl": Suite(
        "pfrl",
        "`FactorizedNoisyLinear`, `to_factorized_noisy`",
        ("tests/nn_tests",),
        naming="noisy",
        select=("-m", "not gpu"),
        reasons=(("test_noisy_chain", "expects PFRL's names of the parameters"),),
    ),
    "torchrl": Suite(
        "torchrl",
        "`NoisyLinear`, `NoisyLazyLinear`",
        ("test/modules", "test/test_exploration.py"),
        naming="NoisyLinear",
        select=("-k", "noisy"),
        reasons=(
            ("bias: got 4", "passes the number of outputs as the lazy layer's `bias`"),
            ("legacy_behavior", "expects `eval()` to turn the noise off"),
            (
                "factorized_gaussian|weight_property|reset_function",
                "expects the noise in `layer.weight`, which is the mean in ours",
            ),
        ),
    ),
    "tianshou": Suite(
        "tianshou",
        "`NoisyLinear`, and the policies of DQN, C51, Rainbow and QR-DQN",
        ("test/discrete", "test/modelbased"),
        naming=r"NoisyLinear|\b(DiscreteQLearning|C51|QRDQN)Policy",
    ),
    "transformers": Suite(
        "transformers",
        "the linear layers of tiny GPT-2, Llama, BERT and ViT models",
        ("tests",),
        # Left out: comparisons of two kernels of attention, and what needs several processes.
        select=("-k", "not eager_matches and not flash and not deepspeed and not disk_offload"),
        in_sdist=True,
        own="tiny_transformers.py",
    ),
    "timm": Suite(
        "timm",
        "the linear layers of every model that a test creates",
        ("tests/test_models.py",),
        select=(
            "-k",
            "(vit_tiny_patch16_224 or mixer_s32_224 or deit_tiny_patch16_224) and not pretrained",
        ),
        reasons=(
            ("_fx", "`torch.fx` traces into a noisy layer, which looks at sizes: denoise first"),
            ("torchscript", "`torch.jit.script` cannot read a noisy layer: denoise first"),
        ),
    ),
}


def main() -> None:
    """Run the suite of one peer and save its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", choices=SUITES, required=True)
    parser.add_argument("--folder", type=Path, help="a checkout of the peer's repository")
    parser.add_argument("--machine", required=True, help="in words: processor, cores")
    arguments = parser.parse_args()
    peer, suite = arguments.peer, SUITES[arguments.peer]
    if arguments.folder is None and peer != "torch" and not suite.in_sdist:
        parser.error(f"--folder: got none, expected a checkout of {peer} with its tests")
    with tempfile.TemporaryDirectory() as place:
        tests = _run_suite(peer, suite, arguments.folder, Path(place))
    keep(peer, tests, arguments.machine)


def keep(peer: str, tests: Tests, machine: str) -> None:
    """Write the counts of a suite beside those of the others, and the table."""
    suite = SUITES[peer]
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    versions = {name: version(name) for name in dict.fromkeys(("torch", suite.package))}
    kept[peer] = {**provenance(machine), "versions": versions, **summary(tests, suite)}
    kept = {name: kept[name] for name in SUITES if name in kept}
    write_json(KEPT, kept)
    KEPT.with_suffix(".md").write_text(table(kept))
    print(json.dumps(kept[peer]["counts"]))


def _run_suite(peer: str, suite: Suite, folder: Path | None, place: Path) -> Tests:
    if peer == "torch":
        return _pytest("nothing", ROOT, list(suite.tests), suite)
    _copy_tests(folder or _sdist(suite.package, place), suite, place / "suite")
    files = _files(suite, place / "suite")
    if suite.own:
        files = [f"tests/test_{suite.own}"]
        shutil.copy(Path(__file__).with_name(suite.own), place / "suite" / files[0])
    tests = _pytest(peer, place / "suite", files, suite)
    failed = [name for name, test in tests.items() if test["outcome"] == "failed"]
    if failed:
        without = _pytest("nothing", place / "suite", failed, suite)
        for name in failed:
            tests[name]["fails_without_us"] = without[name]["outcome"] == "failed"
    return tests


def _sdist(package: str, place: Path) -> Path:
    exact = f"{package}=={version(package)}"
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", package]
    subprocess.run([*pip, "-d", str(place), exact], check=True)
    (archive,) = place.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(place, filter="data")
    return place / archive.name.removesuffix(".tar.gz")


def _copy_tests(folder: Path, suite: Suite, to: Path) -> None:
    """Copy tests and pytest's settings alone, so that the peer is the one that is installed."""
    top = suite.tests[0].partition("/")[0]
    shutil.copytree(folder / top, to / top)
    for name in ("pytest.ini", "setup.cfg", "pyproject.toml"):
        if (folder / name).exists():
            shutil.copy(folder / name, to)


def _files(suite: Suite, place: Path) -> list[str]:
    found: list[Path] = []
    for one in (place / name for name in suite.tests):
        found += sorted(one.rglob("test_*.py")) if one.is_dir() else [one]
    return [
        str(one.relative_to(place)) for one in found if re.search(suite.naming, one.read_text())
    ]


def _pytest(peer: str, place: Path, tests: list[str], suite: Suite) -> Tests:
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.json"
        plugin = ["-p", "benchmarks.hosts.peer_plugin", "--in-place-of", peer]
        command = [*plugin, "--record", str(record), "-q", "--tb=no", *suite.select, *tests]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *command],
            cwd=place,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
            check=False,
        )
        if done.returncode not in (0, 1):
            sys.exit(f"pytest ended with status {done.returncode}, expected 0 or 1")
        return json.loads(record.read_text())


def summary(tests: Tests, suite: Suite) -> dict[str, Any]:
    """Count the tests that touch noisynet, and list those that fail by reason."""
    outcomes = Counter(
        "not touching" if test["outcome"] == "passed" and not test["touches"] else test["outcome"]
        for test in tests.values()
    )
    failures: dict[str, dict[str, str]] = {}
    for name, test in tests.items():
        if test["outcome"] == "failed":
            failures.setdefault(_reason(name, test, suite), {})[name] = test["error"]
    skips = Counter(test["error"] for test in tests.values() if test["outcome"] == "skipped")
    counts = {kind: outcomes[kind] for kind in COUNTED}
    return {"counts": counts, "failures": failures, "skips": dict(skips)}


def _reason(name: str, test: dict[str, Any], suite: Suite) -> str:
    if test.get("fails_without_us"):
        return THEIRS
    text = f"{name} {test['error']}"
    return next((why for what, why in suite.reasons if re.search(what, text)), UNEXPLAINED)


def table(results: dict[str, Any]) -> str:
    """Return the tables of the page: what passes and what does not, and why."""
    counts: list[list[str]] = []
    reasons: list[list[str]] = []
    for peer, one in results.items():
        suite = SUITES[peer]
        name = f"{suite.package} {one['versions'][suite.package].partition('+')[0]}"
        counts.append([name, suite.replaced, *(str(one["counts"][kind]) for kind in COUNTED[:3])])
        for reason, tests in one["failures"].items():
            reasons.append([suite.package, reason, str(len(tests))])
    heads = ("tests of", "what ours replace", *COUNTED[:3])
    lines = markdown_table(heads, counts, left=2)
    lines += ["", *markdown_table(("tests of", "why they fail", "failed"), reasons, left=2)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
