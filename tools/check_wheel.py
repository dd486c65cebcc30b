"""Check an installed Latens: what must be in it is there, and it codes a photograph.

python tools/check_wheel.py PHOTO

Needs nothing but the package itself, and must not be run from a checkout that shadows it.
"""

import io
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata, resources
from pathlib import Path

import numpy as np
from PIL import Image


def main(photo: Path) -> None:
    import latens

    place = Path(latens.__file__).resolve()
    assert place.is_relative_to(Path(sysconfig.get_paths()["platlib"]).resolve()), (
        f"{place} is not an installation"
    )
    files = resources.files("latens")
    for name in ("py.typed", "_native.pyi", f"zoo/data/{latens.zoo.DEFAULT_MODEL}.safetensors"):
        assert files.joinpath(name).is_file(), f"{name} is missing"
    (script,) = (entry for entry in metadata.entry_points(group="console_scripts") if entry.name == "latens")
    assert script.value == "latens.cli:main"

    with Image.open(photo) as image:
        pixels = np.asarray(image.convert("RGB"))
    data = latens.encode(pixels)
    decoded = np.asarray(latens.decode(data))
    mse = np.mean((decoded.astype(float) - pixels) ** 2)
    assert mse < 65.025, f"decoded at {10 * np.log10(255**2 / mse):.1f} dB"  # 30 dB

    command = Path(sysconfig.get_path("scripts")) / "latens"
    with tempfile.TemporaryDirectory() as folder:
        coded = subprocess.run(
            [command, "encode", "-"], input=photo.read_bytes(), capture_output=True, check=True, cwd=folder
        ).stdout
        assert coded == data, "the command and the library disagree"
        png = subprocess.run(
            [command, "decode", "-"], input=coded, capture_output=True, check=True, cwd=folder
        ).stdout
    with Image.open(io.BytesIO(png)) as image:
        assert (np.asarray(image) == decoded).all()
    print(
        f"Latens {latens.__version__}, Python {sys.version.split()[0]}: {photo.name} takes {len(data):,} bytes, "
        f"{10 * np.log10(255**2 / mse):.2f} dB"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
