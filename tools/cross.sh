#!/usr/bin/env bash
# The C++ tests under emulation: NEON on ARM, and the binary of this machine on a CPU of 2008 without AVX, which
# dies of any instruction that slipped out of the unit of its instruction set.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in aarch64-linux-gnu-g++ qemu-aarch64 qemu-x86_64; do
  command -v "$tool" >/dev/null && continue
  echo "make cross needs $tool (Debian, Ubuntu: apt install g++-aarch64-linux-gnu qemu-user)." >&2
  exit 1
done

# under BUILD EMULATOR...: the tests of BUILD, one by one.
under() {
  local build=$1 test
  shift
  for test in "$build"/tests/cpp/test_*; do
    [ -f "$test" ] || continue
    echo "--- $* ${test##*/}"
    RECFUSE_TEST_EMULATED=1 "$@" "$test"
  done
}

# -Wno-stringop-overread: GCC 12 for ARM takes the comparison of two vectors for a read past their end.
cmake -S . -B build/aarch64 -G Ninja -DRECFUSE_PYTHON=OFF -DRECFUSE_TESTS=ON -DCMAKE_SYSTEM_NAME=Linux \
  -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
  -DCMAKE_CXX_FLAGS=-Wno-stringop-overread >/dev/null
cmake --build build/aarch64 -- --quiet
under build/aarch64 qemu-aarch64 -L /usr/aarch64-linux-gnu

[ "$(uname -m)" = x86_64 ] || exit 0
cmake -S . -B build/cpp -G Ninja -DRECFUSE_PYTHON=OFF -DRECFUSE_TESTS=ON >/dev/null
cmake --build build/cpp -- --quiet
under build/cpp qemu-x86_64 -cpu Nehalem
echo "--- qemu-x86_64 -cpu Nehalem: the extension"
qemu-x86_64 -cpu Nehalem "${VENV:-.venv}/bin/python" -m pytest -q -p no:cacheprovider tests/python/test_topk.py
