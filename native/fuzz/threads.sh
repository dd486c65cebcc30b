#!/bin/sh
# Runs the pool under ThreadSanitizer.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
${CXX:-c++} -std=c++20 -O1 -g -Wall -Wextra -fsanitize=thread -pthread -I"$here/.." "$here/threads.cpp" "$here/../pool.cpp" \
    "$here/../fork.cpp" "$here/../team.cpp" -o "$build/threads" -ldl
TSAN_OPTIONS="halt_on_error=1 die_after_fork=0" "$build/threads"
