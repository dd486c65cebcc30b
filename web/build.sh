#!/bin/sh
# Builds the core as WebAssembly and lays the package out.   web/build.sh [FOLDER]   (default: build/web)
# Needs emscripten (Debian: emscripten), and libltn from `make library`, which packs the weights.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
out=${1:-$root/build/web}
objects=$root/build/web-objects
mkdir -p "$out/weights" "$objects"
# Debian's package ships without the system's libraries: they are made once, here.
export EM_CACHE="${EM_CACHE:-$root/build/emscripten}" EM_FROZEN_CACHE=

# The sources of libltn, as they are listed there.
listed=$root/native/library/CMakeLists.txt
core=$(grep -o '}/[a-z0-9_]*[.]cpp' "$listed" | tr -d '}/' | sed 's/[.]cpp//' | sort -u)
library=$(grep -o ' [a-z]*[.]cpp' "$listed" | tr -d ' ' | sed 's/[.]cpp//' | sort -u)
exports=_malloc,_free,_ltn_info,_ltn_model_load,_ltn_model_free,_ltn_model_name,_ltn_model_weights_id,_ltn_decode
exports=$exports,_ltn_image_free,_ltn_image_header,_ltn_image_pixels,_ltn_image_alpha,_ltn_image_metadata,_ltn_encode
exports=$exports,_ltn_encode_lossless,_ltn_free

# Whether a file is missing, or older than what it is made of.
stale() { [ ! -e "$1" ] || [ -n "$(find "$root/native" "$here/build.sh" -newer "$1" -type f | head -n 1)" ]; }

build() { # NAME FLAGS: one module
    name=$1
    shift
    if ! stale "$out/$name.wasm"; then return; fi
    linked=
    for source in $core $library; do
        path=$root/native/$source.cpp
        [ -e "$path" ] || path=$root/native/library/$source.cpp
        object=$objects/$name-$source.o
        linked="$linked $object"
        if ! stale "$object"; then continue; fi
        em++ -std=c++20 -O3 -fno-rtti -ffp-contract=off -Wall -Wextra -I"$root/native" "$@" -c "$path" -o "$object"
    done
    # Memory grows as files need it, to no more than the half of what a page can have.
    # shellcheck disable=SC2086
    em++ -O3 "$@" $linked -sSTANDALONE_WASM --no-entry -sEXPORTED_FUNCTIONS="$exports" -sALLOW_MEMORY_GROWTH \
        -sMAXIMUM_MEMORY=2GB -sINITIAL_MEMORY=16MB -sTOTAL_STACK=1MB -o "$out/$name.wasm"
}
build ltn-simd -msimd128
build ltn-plain

shared=$(ls "$root"/build/library/libltn.so "$root"/build/library/libltn.dylib 2>/dev/null | head -n 1)
"${PYTHON:-python3}" "$here/pack.py" "$shared" "$out"
for name in core.js worker.js ltn.js element.js page.js index.html page.css ltn.d.ts element.d.ts package.json; do
    cp "$here/$name" "$out/$name"
done
cp "$root/LICENSE" "$out/LICENSE"
gzip -9 -k -c "$out/ltn-simd.wasm" | wc -c | xargs printf 'ltn-simd.wasm: %s bytes, gzip\n'
