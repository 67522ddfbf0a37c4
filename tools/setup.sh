#!/usr/bin/env bash
# Sets up .venv; quiet, but a failure shows the log and says what to install.
#   tools/setup.sh requirements EXTRA   the environment, and what recfuse[EXTRA] and its build need
#   tools/setup.sh install              builds recfuse and installs it there
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
log=build/setup.log

stop() {
  printf '%s\n' "$@" >&2
  exit 1
}

# quietly COMMAND...: its output goes to the log.
quietly() { "$@" </dev/null >>"$log" 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python3.10}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  stop "recfuse needs Python >= 3.10 and found none (Debian, Ubuntu: apt install python3); PYTHON=... names another."
}

check_compiler() {
  local candidate
  for candidate in ${CXX:-c++ g++ clang++}; do
    if command -v "$candidate" >/dev/null; then return; fi
  done
  stop "recfuse needs a C++20 compiler, GCC >= 11 or Clang >= 14, and found none" \
    "(Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++); CXX=... names another."
}

check_headers() {
  local header
  header=$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
  [ -f "$header" ] || stop "recfuse needs the headers of Python and found no $header" \
    "(Debian, Ubuntu: apt install python3-dev; Fedora: dnf install python3-devel)."
}

make_environment() {
  local python
  [ -x "$venv/bin/pip" ] && "$venv/bin/python" -c '' 2>/dev/null && return
  python=$(find_python)
  check_compiler
  check_headers "$python"
  rm -rf "$venv"
  echo "Making $venv with $("$python" --version) ..."
  quietly "$python" -m venv "$venv" || {
    rm -rf "$venv"
    stop "Python's venv module is missing or cannot install pip (Debian, Ubuntu: apt install python3-venv); log: $log."
  }
}

install_requirements() {
  local extra=$1
  echo "Installing what recfuse[$extra] needs ..."
  quietly "$venv/bin/python" -m pip install -r <("$venv/bin/python" tools/requirements.py "$extra") && {
    touch "$venv/requirements-$extra"
    return
  }
  grep '^ERROR' "$log" | tail -n 3 >&2 || true
  echo "pip could not install these: is a package registry in reach? Log: $log." >&2
  # The demo has data of its own, and whatever else is missing it names itself.
  [ "$extra" = demo ] && "$venv/bin/python" -c 'import recfuse' 2>/dev/null || exit 1
  echo "Going on with the recfuse that $venv already has." >&2
}

install_recfuse() {
  check_compiler
  echo "Building recfuse ..."
  # The tools of the build are in $venv, so build/ stays valid and only what changed is compiled.
  PATH=$PWD/$venv/bin:$PATH quietly \
    "$venv/bin/python" -m pip install --no-deps --no-build-isolation --no-index . || {
    grep -E 'error:|CMake Error|recfuse needs' -A 8 "$log" | head -n 60 >&2 || true
    stop "The build failed; the whole log: $log."
  }
  touch "$venv/installed"
}

mkdir -p build
: >"$log"
case ${1:-} in
  requirements) make_environment && install_requirements "$2" ;;
  install) install_recfuse ;;
  *) stop "usage: tools/setup.sh requirements EXTRA | install" ;;
esac
