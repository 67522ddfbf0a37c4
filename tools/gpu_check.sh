#!/usr/bin/env bash
# Everything that only a GPU can tell: builds, tests, compute-sanitizer, benchmarks; the evidence goes to a folder.
#   tools/gpu_check.sh [FOLDER]     (gpu-check)
#   tools/gpu_check.sh --host-only  what needs no device: compile, look at the code, run the kernels on the emulator
# Needs Python with NumPy, SciPy, pybind11, pytest and hypothesis, CMake, Ninja, nvcc; PyTorch with CUDA for the benchmarks.
set -euo pipefail
cd "$(dirname "$0")/.."

host_only=false
[ "${1:-}" != --host-only ] || { host_only=true; shift; }
out=${1:-gpu-check}
build=build/gpu
mkdir -p "$out" "$build"

# step NAME COMMAND...: its output goes to a file of that name; a failure shows the end of it.
step() {
  local name=$1 begun=$SECONDS
  shift
  if "$@" >"$out/$name.log" 2>&1; then
    printf 'ok      %-24s %4d s  %s\n' "$name" $((SECONDS - begun)) "$(grep -v '^$' "$out/$name.log" | tail -n 1 | cut -c1-100)"
  else
    printf 'FAILED  %-24s %4d s\n' "$name" $((SECONDS - begun))
    tail -n 40 "$out/$name.log"
    failed=true
  fi
}
failed=false

compile() {
  # The device's own generation only: the others are compiled by every build.
  cmake -S . -B "$build" -G Ninja -DRECFUSE_TESTS=ON -DRECFUSE_CUDA=ON -DRECFUSE_CUDA_ARCHITECTURES="${ARCHITECTURES:-90a-real}" \
    -DRECFUSE_EMULATE_CUDA=ON -Dpybind11_DIR="$(python3 -m pybind11 --cmakedir)" \
    -DPython_EXECUTABLE="$(command -v python3)" -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$PWD/$build/python/recfuse"
  mkdir -p "$build/python"
  cp -r python/recfuse "$build/python/"
  cmake --build "$build" -- --quiet
}

run_python() { PYTHONPATH=$build/python:$build/python/recfuse python3 "$@"; }

device_tests() {
  run_python -m pytest -q -p no:cacheprovider -k 'cuda-float16' tests/python/test_topk.py tests/python/test_fuse_topk.py \
    tests/python/test_fusion_rules.py tests/python/test_norm_order.py
}

# Arrays that are on the device before and after; those of networks where ONNX Runtime for CUDA is installed.
array_tests() {
  run_python -m pytest -q -p no:cacheprovider tests/python/test_device_arrays.py tests/python/test_device_memory.py \
    tests/python/test_encoder_on_device.py tests/python/test_encoder_graphs.py
}

small_searches() {
  compute-sanitizer --tool "$1" --error-exitcode 7 --require-cuda-init=no python3 benchmarks/gpu_small.py
}

step compile compile
step emulator "$build/tests/cpp/test_cuda_logic"
if $host_only; then
  step code python3 tests/tools/check_cuda.py
else
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  step tests device_tests
  step arrays array_tests
  export PYTHONPATH=$build/python:$build/python/recfuse
  for tool in memcheck racecheck initcheck synccheck; do step "$tool" small_searches "$tool"; done
  step benchmark run_python benchmarks/gpu.py "$out/gpu.json"
  cat "$out/benchmark.log"
fi
! $failed
