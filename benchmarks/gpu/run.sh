#!/usr/bin/env bash
# All measurements on a GPU in one call of under ten minutes, on a machine that has Python, PyTorch
# with its Triton, and nothing else:
#
#     bash benchmarks/gpu/run.sh
#
# OUT=folder      where results go; by default benchmarks/results/gpu
# WHEELS=folder   wheels that the machine lacks; installed without an index
# PYTHON=python3  the interpreter that has PyTorch
#
# Every step has its own time limit, and what it wrote before the limit is kept; a step that fails
# does not stop the next. $OUT/steps.txt records how each ended.

set -u
cd "$(dirname "$0")/../.." || exit
OUT=${OUT:-benchmarks/results/gpu}
WHEELS=${WHEELS:-.wheels}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
: >"$OUT/steps.txt"
export PYTHONPATH=src PYTHONUNBUFFERED=1

if compgen -G "$WHEELS/*.whl" >/dev/null; then
  site=$(mktemp -d)
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl || exit
  export PYTHONPATH=$PYTHONPATH:$site
fi

# step NAME SECONDS COMMAND…
step() {
  local name=$1 seconds=$2 began=$SECONDS status
  shift 2
  echo "== $name (at most $seconds s)"
  timeout --kill-after=5 "$seconds" "$@" 2>&1 | tee "$OUT/$name.log"
  status=${PIPESTATUS[0]}
  echo "$name: exit status $status after $((SECONDS - began)) s" | tee -a "$OUT/steps.txt"
}

"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  { echo 'benchmarks/gpu/run.sh: no CUDA device' >&2; exit 2; }

run_tests() {
  "$PYTHON" -m pytest -q -c /dev/null --rootdir . -p no:cacheprovider --import-mode=importlib \
    -o markers='gpu slow' "$@"
}
measure_training() {
  "$PYTHON" -m benchmarks.gpu.training --out "$OUT" "$@"
}
export -f run_tests measure_training
export PYTHON OUT

# Together at most 570 seconds. The kernels are for the layers alone: agents train as by default. A
# part of the training is written once it is whole, and all its paths would take longer than it has.
step layers-tests 80 env NOISYNET_KERNELS=1 bash -c 'run_tests tests/layers/kernels/triton_cases.py'
step gpu-tests 100 bash -c 'run_tests -m "gpu and not slow" tests/layers/test_gpu.py tests/agents tests/cli/test_gpu.py'
step solve 170 bash -c 'measure_training --only solve --seeds 200 201 202 --solve-seconds 75 --within 165'
step layers 80 env NOISYNET_KERNELS=1 "$PYTHON" -m benchmarks.gpu.layers --out "$OUT" --seconds 70
step training 140 bash -c 'measure_training --only updates training --paths pqn-pong --rounds 3 --updates 50 --seconds 5 --turns 1'
