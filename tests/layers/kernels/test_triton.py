"""The kernels in Triton: run in its interpreter, and compiled for a GPU that is not here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from noisynet.layers.kernels import dispatch

CASES = Path(__file__).parent / "triton_cases.py"

pytestmark = pytest.mark.skipif(
    not dispatch.is_installed(), reason="Triton is not installed (pip install triton)"
)


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    environment.pop("TRITON_INTERPRET", None)
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, **variables},
        timeout=1200,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the kernels run there")
def test_the_cases_in_the_interpreter() -> None:
    done = run(
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CASES)],
        TRITON_INTERPRET="1",
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_cases_on_a_gpu() -> None:
    done = run(["-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from noisynet.layers.kernels import triton as kernels
POINTERS = {"out", "mean", "scale", "f_input", "f_output", "steady", "noisy", "x", "sigma", "y",
            "bias", "bias_sigma", "noise_bias", "g", "of_mean", "of_sigma", "of_bias",
            "of_bias_sigma"}
FLOAT32 = {"steady", "noisy"}
OPTIONS = {"HAS_MEAN": 1, "HAS_SCALE": 1, "HAS_BIAS": 1, "BB": 32, "BQ": 32, "BP": 64}
def signature(kernel, element):
    types = {}
    for name in kernel.arg_names:
        if name == "seed":
            types[name] = "*i64"
        elif name in POINTERS:
            types[name] = "*fp32" if name in FLOAT32 else f"*{element}"
        else:
            types[name] = "constexpr" if name.isupper() and len(name) > 1 and name not in (
                "CHUNK", "PARTS") else "i32"
    return types
for element, dtype in (("fp32", kernels.tl.float32), ("bf16", kernels.tl.bfloat16)):
    for kind, rows in ((0, False), (1, False), (0, True)):
        for name in ("combine", "product", "finish", "input_gradient", "weight_gradients"):
            kernel = getattr(kernels, name)
            values = {**OPTIONS, "KIND": kind, "ROWS": rows, "ROUND": dtype, "DOT": dtype,
                      "PRECISION": "ieee"}
            types = signature(kernel, element)
            constants = {n: values[n] for n, t in types.items() if t == "constexpr"}
            source = triton.compiler.ASTSource(kernel, types, constants)
            done = triton.compile(source, target=GPUTarget("cuda", 90, 32))
            assert ".version" in done.asm["ptx"], name
print("compiled")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux")
def test_every_kernel_compiles_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    done = run(["-c", COMPILE], TRITON_CACHE_DIR=str(tmp_path))
    assert done.stdout.strip() == "compiled", done.stderr[-2000:]
