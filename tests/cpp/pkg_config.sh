#!/bin/sh
# pkg_config.sh PREFIX MODEL: programs built by what pkg-config says of an installation, one in C++ and one in C.
set -eu
here=$(dirname "$0")
export PKG_CONFIG_PATH="$1/lib/pkgconfig:$1/lib64/pkgconfig:$1/lib/$(uname -m)-linux-gnu/pkgconfig"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
${CXX:-c++} -std=c++20 "$here/consumer/main.cpp" -o "$out/core" $(pkg-config --cflags --libs recfuse)
"$out/core"
${CC:-cc} -std=c11 "$here/consumer_c/main.c" -o "$out/c" $(pkg-config --cflags --libs recfuse-c) \
  -Wl,-rpath,"$(pkg-config --variable=libdir recfuse-c)"
"$out/c" "$2"
