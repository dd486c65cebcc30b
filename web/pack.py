"""Packs the shipped weights for the browser with libltn, and writes which there are.

usage: pack.py LIBRARY FOLDER
"""

import ctypes
import hashlib
import json
import sys
from pathlib import Path

MODELS = ("latens-eye-1", "latens-psnr-1")
DATA = Path(__file__).resolve().parents[1] / "src/latens/zoo/data"


def packed(library: ctypes.CDLL, weights: bytes, encoding: bool) -> bytes:
    """One part of a weights file."""
    file, size, error = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    given = ctypes.c_char_p(weights), ctypes.c_size_t(len(weights)), ctypes.c_int(encoding)
    if library.ltn_weights_pack(*given, ctypes.byref(file), ctypes.byref(size), error):
        raise SystemExit(error.raw[4:].split(b"\0")[0].decode())
    data = ctypes.string_at(file, size.value)
    library.ltn_free(file)
    return data


def main(path: str, folder: str) -> None:
    library = ctypes.CDLL(path)
    names = {}
    for model in MODELS:
        weights = (DATA / f"{model}.safetensors").read_bytes()
        names[model] = f"{model}-{hashlib.sha256(weights).hexdigest()[:8]}"
        for encoding in (False, True):
            out = Path(folder) / "weights" / f"{names[model]}{'-encoding' * encoding}.ltnw"
            if not out.exists():
                out.write_bytes(packed(library, weights, encoding))
    listed = "\n".join(
        [
            "// Written by `make web`: what `weights` holds.",
            f"export const MODELS = {json.dumps(list(names.values()))};",
            "export const DEFAULT_MODEL = MODELS[0];",
        ]
    )
    (Path(folder) / "models.js").write_text(listed + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
