#!/bin/sh
# Builds the core and its fuzz targets with AddressSanitizer and UBSan, and runs them.
#   native/fuzz/run.sh [COUNT [SEED]]     COUNT inputs per target (default 10000); TARGETS="file lanes" for some
# CXX chooses the compiler; CXXFLAGS="-U__SSE2__ -U__SIZEOF_INT128__ -DLATENS_PORTABLE" takes the portable paths.
# With clang, -fsanitize=fuzzer in place of driver.cpp makes libFuzzer targets of the same sources.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
flags="-std=c++20 -O1 -g -Wall -Wextra -fno-sanitize-recover=all -fsanitize=address,undefined -pthread -I$here/.. ${CXXFLAGS:-}"
objects() {
    for source in "$here"/../*.cpp "$here"/../library/*.cpp; do
        printf '%s\0%s\0' "$source" "$build/core-$(basename "$source" .cpp).o"
    done
    for source in "$here"/*.cpp; do
        [ "$(basename "$source")" = threads.cpp ] ||
            printf '%s\0%s\0' "$source" "$build/fuzz-$(basename "$source" .cpp).o"
    done
}
objects | xargs -0 -P "$(getconf _NPROCESSORS_ONLN)" -n 2 sh -c '${CXX:-c++} $0 -c "$1" -o "$2"' "$flags"
for target in ${TARGETS:-stream lanes tables layers lossless motion network winograd file}; do
    ${CXX:-c++} $flags "$build"/core-*.o "$build/fuzz-$target.o" "$build/fuzz-driver.o" -o "$build/$target" -ldl
    printf '%s: ' "$target"
    "$build/$target" "$@"
done
