#!/usr/bin/env bash
# tools/adapters.sh [rectools] [lenskit] [cornac]: the tests of recfuse.adapters, each beside its library.
# A virtual environment a library, because they want different versions of NumPy; in build/adapters,
# or where ADAPTERS_VENVS says. PYTHON makes them: one that the compiled module is built for, by
# default .venv's. recfuse is what `make .venv/installed` installed, or what PYTHONPATH has.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
VENVS=${ADAPTERS_VENVS:-build/adapters}
WHERE=$("$PYTHON" -c 'import os, recfuse; print(os.path.dirname(os.path.dirname(recfuse.__file__)))')

requirement() {
  sed -n "s/^$1 = \[\"\(.*\)\"\]$/\1/p" pyproject.toml
}

[ $# -gt 0 ] || set -- rectools lenskit cornac
for name in "$@"; do
  wanted=$(requirement "$name")
  [ -n "$wanted" ] || {
    echo "adapters: library must be rectools, lenskit or cornac; got $name" >&2
    exit 2
  }
  venv=$(realpath -m "$VENVS/$name")
  [ -x "$venv/bin/python" ] || "$PYTHON" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet "$wanted" scipy pytest pytest-benchmark hypothesis
  "$venv/bin/python" -m pip list 2>/dev/null | grep -iE "^(rectools|lenskit|cornac|numpy|scipy) "
  # A link to the package alone: beside it lies what is installed where it is.
  mkdir -p "$venv/recfuse" && ln -sfn "$WHERE/recfuse" "$venv/recfuse/recfuse"
  PYTHONPATH=$venv/recfuse "$venv/bin/python" -m pytest -q "tests/python/test_adapter_$name.py"
done
