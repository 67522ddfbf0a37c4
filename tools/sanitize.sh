#!/usr/bin/env bash
# Builds with a sanitizer and runs tests under it; stops at the first report.
#   tools/sanitize.sh address,undefined|thread           every test
#   tools/sanitize.sh address,undefined|thread python    those of Python alone
#   tools/sanitize.sh address,undefined|thread python [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."

sanitizers=${1:-}
build=build/sanitize-${sanitizers%%,*}
export PATH=$PWD/${VENV:-.venv}/bin:$PATH

case $sanitizers in
  address*) runtimes="libasan.so libubsan.so" ;;
  thread) runtimes=libtsan.so ;;
  *) echo "usage: tools/sanitize.sh address,undefined | thread [python [arguments of pytest]]" >&2 && exit 1 ;;
esac

# TSan sees races where NumPy's own threads meet, for they are not instrumented; what it sees in ours counts.
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1:allocator_may_return_null=1:ignore_noninstrumented_modules=1:die_after_fork=0:history_size=4

echo "Building with -fsanitize=$sanitizers ..."
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DRECFUSE_SANITIZE="$sanitizers" \
  -DRECFUSE_TESTS=ON -Dpybind11_DIR="$(python -m pybind11 --cmakedir)" \
  -DPython_EXECUTABLE="$(command -v python)" >/dev/null
cmake --build "$build" -- --quiet

# setarch -R: fixed addresses, for a kernel may choose some that TSan has reserved.
[ "${2:-}" = python ] || setarch -R ctest --test-dir "$build" --output-on-failure --no-tests=error
shift $(($# < 2 ? $# : 2))

rm -rf "$build/python"
mkdir "$build/python"
cp -r python/recfuse "$build/python/"
rm -f "$build"/python/recfuse/_core.*.so
cmake --install "$build" --prefix "$build/python" --component python >/dev/null
# Programs in little memory, of which a sanitizer takes several times as much.
deselected=(--deselect tests/python/test_out_of_core.py::test_a_file_is_searched_in_place
  --deselect tests/python/test_out_of_core.py::test_an_index_keeps_no_copy_that_takes_too_much)
if [ "$sanitizers" = thread ]; then
  # Neither runs any code of ours: polars dies by itself (its tests are skipped with this reason), and TSan loses count
  # of the threads that ONNX Runtime starts in the child of a process with threads.
  echo 'raise ModuleNotFoundError("polars does not run under ThreadSanitizer")' >"$build/python/polars.py"
  deselected+=(--deselect tests/python/test_encoder_session.py::test_an_encoder_works_in_a_forked_child
    --deselect 'tests/python/test_als.py::test_many_factors[1025]')  # minutes, for the code that 257 factors run
fi

preload=
for library in $runtimes libstdc++.so; do  # libstdc++: or the runtime meets its first exception unprepared
  preload+="$("${CXX:-c++}" -print-file-name="$library") "
done

# under_sanitizer ARGUMENTS...: pytest, with the runtime loaded before Python.
# --capture=sys: pytest would swallow the report, which goes to the descriptor.
# detect_leaks=0: Python itself frees nothing at exit; the C++ tests look for leaks. allocator_may_return_null:
# a request that is too large is a MemoryError, which tests expect. OPENBLAS_NUM_THREADS=1: no thread but ours.
under_sanitizer() {
  LD_PRELOAD=$preload ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONPATH=$build/python \
    PYTHONMALLOC=malloc OPENBLAS_NUM_THREADS=1 \
    setarch -R python -m pytest -q -p no:cacheprovider --capture=sys "${deselected[@]}" "$@"
}

if [ $# -gt 0 ]; then
  under_sanitizer "$@"
  exit
fi
for file in tests/python/test_*.py; do
  case ${file##*/} in
    # Files, texts, tables and subprocesses: nothing compiled of ours runs in these.
    test_bench*|test_checks*|test_cli*|test_datasets*|test_demo*|test_encoder*|test_evaluation*|test_features*) continue ;;
    # Whole programs, and what is written about them: many minutes, for calls that the other tests make.
    test_article*|test_choosing*|test_documents*|test_examples*|test_plots*|test_quality*|test_recipes*) continue ;;
    test_memory*) continue ;;  # measures the memory of a process, of which a sanitizer takes several times as much
  esac
  begun=$SECONDS
  status=0
  under_sanitizer "$file" >"$build/pytest.log" 2>&1 || status=$?
  # 5: all of the file was skipped, for what it needs is not there (polars).
  [ $status = 0 ] || [ $status = 5 ] || { cat "$build/pytest.log"; exit 1; }
  echo "$file: $(tail -n 1 "$build/pytest.log") ($((SECONDS - begun)) s)"
done
