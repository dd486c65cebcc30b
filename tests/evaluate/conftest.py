"""A folder of small images, and programs that stand in for an external codec and do all that these may do."""

import stat
import sys
from pathlib import Path

import pytest
from PIL import Image

import tiny

# Behaves by the quantiser it is given: 1 hangs with a child of its own, 2 kills its caller, 3 fails with a message
# that holds markup; otherwise the file is a copy of the image.
ENCODER = """#!{python} -ISE
import os, signal, subprocess, sys, time
quality = int(sys.argv[sys.argv.index("-q") + 1])
out, image = sys.argv[sys.argv.index("-o") + 1], sys.argv[-1]
if quality == 1:
    child = subprocess.Popen(["sleep", "600"])
    open({mark!r}, "w").write(str(child.pid))
    time.sleep(600)
if quality == 2:
    os.kill(os.getppid(), signal.SIGSEGV)
    time.sleep(600)
if quality == 3:
    sys.exit("<script>alert(1)</script> cannot encode")
open(out, "wb").write(open(image, "rb").read())
"""
DECODER = """#!{python} -ISE
import sys
open(sys.argv[2], "wb").write(open(sys.argv[3], "rb").read())
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images of different sizes, both with odd sides; one has a name with markup, one begins with a dash."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(tiny.picture(63, 97)).save(folder / "-<b>&.png")
    Image.fromarray(tiny.picture(45, 51, seed=1)).save(folder / "plain.png")
    return folder


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """Paths of the encoder and the decoder, as options of a codec."""
    found = {}
    for name, text in (("encoder", ENCODER), ("decoder", DECODER)):
        path = tmp_path / name
        path.write_text(text.format(python=sys.executable, mark=str(tmp_path / "child")))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        found[name] = str(path)
    return found
