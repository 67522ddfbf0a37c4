#!/usr/bin/env bash
# Everything that only a GPU can tell, in under 9 minutes: builds, tests, compute-sanitizer, benchmarks.
#   tools/gpu_check.sh [FOLDER]          log.txt and gpu-<device>.json go to FOLDER (gpu-check), the latter to benchmarks/results, too
#   tools/gpu_check.sh --host-only       what needs no device: compile, look at the code, and rehearse every step on the emulator
#   STEPS="smoke one" tools/gpu_check.sh some steps alone, on what an earlier run has built
# Every step has a limit of its own and adds to the evidence when it ends: one that fails or hangs costs none of the others.
# Needs Python with NumPy, SciPy, pybind11, pytest and hypothesis, CMake, Ninja and nvcc; PyTorch with CUDA for the benchmarks. CuPy, onnx and
# onnxruntime-gpu are used where they are: wheels in .whl/ are installed first, those that came in parts (*.whl.00, *.whl.01 ...) joined.
# Python's headers, where the machine lacks them, are looked for in .python-include/.
set -uo pipefail
cd "$(dirname "$0")/.."

host_only=false
[ "${1:-}" != --host-only ] || { host_only=true; shift; }
out=${1:-gpu-check}
export build=$PWD/build/gpu
budget=${BUDGET:-530} rehearse=
if $host_only; then budget=${BUDGET:-7200} rehearse=--rehearse build=$build-host; fi
export rehearse PYTHONUNBUFFERED=1 PYTHONPATH=$build/python:$build/modules:$build/site
mkdir -p "$out" "$build/python" "$build/modules" "$build/site"
log=$out/log.txt evidence=$build/evidence.json
: >"$log"
failed=false
keep=0 # seconds that later steps must have

note() { python3 benchmarks/gpu/evidence.py "$evidence" step "$@" || true; }

# step NAME SECONDS COMMAND...: its output goes to the log; a failure shows the end of it.
step() {
  local name=$1 limit=$2 begun=$SECONDS left=$((budget - SECONDS - keep)) status=ok from said
  shift 2
  [ -z "${STEPS:-}" ] || [[ " $STEPS " == *" $name "* ]] || return 0
  [ "$left" -ge "$limit" ] || limit=$left
  if [ "$limit" -lt 5 ]; then
    note "$name" 'left out' 0 'no time left'
    printf 'left out  %-12s no time left\n' "$name"
    return 0
  fi
  local within=(timeout -k 5 "$limit")
  ! $host_only || within=() # in the process group of whoever may stop it
  printf -- '--- %s\n' "$name" >>"$log"
  from=$(wc -l <"$log")
  "${within[@]}" bash -c '"$@"' - "$@" </dev/null >>"$log" 2>&1 || {
    status=failed
    [ $((SECONDS - begun)) -lt "$limit" ] || status='timed out'
    failed=true
  }
  said=$(tail -n +$((from + 1)) "$log" | grep -v '^$' | tail -n 1 | cut -c1-150)
  note "$name" "$status" $((SECONDS - begun)) "$said"
  printf '%-9s %-12s %4d s  %s\n' "$status" "$name" $((SECONDS - begun)) "$said"
  [ "$status" = ok ] || tail -n +$((from + 1)) "$log" | tail -n 30
  save
  [ "$status" = ok ]
}

# What there is so far, where it outlives the machine.
save() {
  $host_only && return 0
  local device
  device=$(nvidia-smi --query-gpu=name --format=csv,noheader -i 0 2>/dev/null | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
  cp "$evidence" "$out/gpu-${device:-unknown}.json"
  [ -z "$device" ] || cp "$evidence" "benchmarks/results/gpu-$device.json"
}

wheels() {
  local first
  for first in .whl/*.whl.00; do
    [ -e "$first" ] || continue
    cat "${first%.00}".[0-9][0-9] >"$build/$(basename "${first%.00}")"
  done
  python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$build/site" $(ls .whl/*.whl "$build"/*.whl 2>/dev/null)
}

compile() {
  local targets=(_core _cuda) options=(-DRECFUSE_TESTS=OFF -DRECFUSE_EMULATE_CUDA=OFF)
  if [ -n "$rehearse" ]; then targets+=(_cuda_emulated test_cuda_{als,als_streamed,devices,logic,hopper,paths,sparse}) options=(-DRECFUSE_TESTS=ON -DRECFUSE_EMULATE_CUDA=ON); fi
  # A machine may have Python without its headers; those of the same minor version will do.
  [ ! -e .python-include/Python.h ] || options+=(-DPython_INCLUDE_DIR="$PWD/.python-include")
  # The device's own generation only: the others are compiled by every build.
  cmake -S . -B "$build" -G Ninja "${options[@]}" -DRECFUSE_CUDA=ON -DRECFUSE_CUDA_ARCHITECTURES="${ARCHITECTURES:-90a-real}" \
    -Dpybind11_DIR="$(python3 -m pybind11 --cmakedir)" -DPython_EXECUTABLE="$(command -v python3)" \
    -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$build/python/recfuse" || return 1
  tar -C python --exclude='*.so' --exclude=__pycache__ -cf - recfuse | tar -C "$build/python" -xf - || return 1
  cmake --build "$build" --target "${targets[@]}" -- --quiet || return 1
  # Not beside the files of the package: their names would hide those of others.
  ! ls "$build"/python/recfuse/_cuda_emulated* >/dev/null 2>&1 || mv "$build"/python/recfuse/_cuda_emulated* "$build/modules/"
  python3 -c 'import recfuse; print(recfuse.__file__, recfuse.doctor()["cuda"])'
}

# Files of tests by name, or by a pattern that may fit none.
files() { for name in "$@"; do compgen -G "tests/python/test_$name.py"; done; }

# Warnings of the libraries of that machine are not what is looked for, nor need their plugins be those of the test environment.
tests() { python3 -m pytest -q -ra -o addopts= -W default -p no:cacheprovider --maxfail=20 "$@"; }

# Each kind of kernels that the device runs, by a name that forces it.
kernels() { tests tests/python/test_cuda_isa.py; }

# The same bodies as on the CPU; those of arrays that lie on the device are in `arrays`.
searches() {
  tests -k "${1:-cuda}-float16" $(files topk fuse_topk fusion_rules 'rank*' 'evaluation_rank*')
}

# Similar rows, and lists made of them.
similar() { tests -k "${1:-cuda}" $(files cosine_knn 'neighbour*'); }

arrays() { tests $(files 'device_*' encoder_on_device encoder_graphs); }

# Several ranges of the items: one GPU that has them all is as good as several.
shards() {
  [ -n "$(files 'several_*')" ] || { echo 'not here yet'; return 0; }
  tests -k "${1:-cuda}" $(files 'several_*')
}

# Every solver.
factors() { tests -k "${1:-cuda}" $(files 'als_*on_device' als_streamed); }

sanitized() {
  command -v compute-sanitizer >/dev/null || { echo 'no compute-sanitizer here'; return 1; }
  compute-sanitizer --tool "$1" --target-processes all --error-exitcode 7 --require-cuda-init=no python3 benchmarks/gpu/smoke.py
}

smoke() { python3 benchmarks/gpu/smoke.py $rehearse; }
measure() { python3 benchmarks/gpu "$evidence" "$1" $rehearse; }
rules() { python3 tests/tools/check_cuda.py; }
# One GPU that holds every index in two ranges is as good as two.
twice() { RECFUSE_TEST_GPUS=cuda:0,0 searches "$@" && tests -k "${1:-cuda}" tests/python/test_several_devices*.py; }
export -f twice
emulator() { for name in als als_streamed devices logic hopper paths sparse; do "$build/tests/cpp/test_cuda_$name" || return 1; done; }

export evidence
export -f wheels compile files tests kernels searches similar arrays shards factors sanitized smoke measure rules emulator

# A function, read whole before it runs: who edits this file meanwhile does no harm.
main() {
  [ -n "${STEPS:-}" ] && [ -e "$evidence" ] || python3 benchmarks/gpu/evidence.py "$evidence" start || exit 1
  [ ! -d .whl ] || step wheels 60 wheels
  $host_only || nvidia-smi --query-gpu=name,driver_version --format=csv,noheader

  limit() { if $host_only; then echo 3600; else echo "$1"; fi; }
  # What the others need, then from the cheapest and most telling on; before the measurements nothing may take their time.
  if ! $host_only && [ -z "${STEPS:-}" ]; then keep=240; fi
  step compile "$(limit 240)" compile || { [ -n "${STEPS:-}" ] || exit 1; }
  step smoke "$(limit 60)" smoke
  step kernels "$(limit 60)" kernels
  if $host_only; then
    step rules 3600 rules
    step emulator 3600 emulator
    step searches 3600 searches emulator
    step similar 3600 similar emulator
    step factors 3600 factors emulator
    step shards 3600 shards emulator
  else
    step searches 100 searches
    step similar 60 similar
    step factors 80 factors
    step shards 40 shards
  fi
  step arrays "$(limit 60)" arrays
  step twice "$(limit 100)" twice $(! $host_only || echo emulator)
  $host_only || step memcheck 60 sanitized memcheck
  keep=0
  # The targets first: what no time is left for is left out.
  step ceilings "$(limit 30)" measure ceilings
  for part in topk als cosine_knn fuse_topk; do step "race-$part" "$(limit 90)" measure "$part"; done
  step encode "$(limit 60)" measure encode
  step pays "$(limit 60)" measure pays
  $host_only || for tool in racecheck synccheck initcheck; do step $tool 60 sanitized $tool; done
  ! $failed
}
main; exit
