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
    child = subprocess.Popen(["sleep", "86400"])
    open({mark!r}, "w").write(str(child.pid))
    time.sleep(86400)
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


# Stand-ins for the reference softwares and for tfci.py. They take the options that their manuals name and no others,
# want exactly as many samples as these options announce, and lose what a quantiser loses.
REFERENCE_ENCODER = """#!{python} -ISE
import argparse, json, pathlib, zlib
p = argparse.ArgumentParser(allow_abbrev=False)
for name in ("-c", "-i", "-b", "-o"):
    p.add_argument(name, required=True)
for name in ("-wdt", "-hgt", "-fr", "-f", "-q", "--InputChromaFormat", "--InputBitDepth", "--ConformanceWindowMode"):
    p.add_argument(name, type=int, required=True)
a = p.parse_args()
if "IntraPeriod" not in open(a.c).read():
    raise SystemExit("no configuration of pictures that stand alone")
samples = open(a.i, "rb").read()
chroma = {{444: 1, 420: 4}}[a.InputChromaFormat]
size = 1 if a.InputBitDepth == 8 else 2
if chroma == 4 and (a.wdt % 2 or a.hgt % 2):
    raise SystemExit("odd sides cannot be subsampled")
if len(samples) != size * (a.wdt * a.hgt + 2 * (a.wdt * a.hgt // chroma)):
    raise SystemExit("not the planes of one picture")
if (a.fr, a.f, a.ConformanceWindowMode) != (1, 1, 1):
    raise SystemExit("not one picture")
step = 2 ** (a.q // 12) * (1 if size == 1 else 4)
words = memoryview(samples).cast("B" if size == 1 else "H")
kept = type(samples)().join((min(w // step * step + step // 2, 2 ** a.InputBitDepth - 1)).to_bytes(size, "little")
                            for w in words)
pathlib.Path(a.b).write_bytes(json.dumps({{"bits": a.InputBitDepth}}).encode() + b"\\n" + zlib.compress(kept))
print("POC 0 ...")
"""
REFERENCE_DECODER = """#!{python} -ISE
import argparse, json, pathlib, zlib
p = argparse.ArgumentParser(allow_abbrev=False)
for name in ("-b", "-o"):
    p.add_argument(name, required=True)
p.add_argument("-d", type=int, required=True)
a = p.parse_args()
head, _, planes = pathlib.Path(a.b).read_bytes().partition(b"\\n")
if json.loads(head)["bits"] != a.d:
    raise SystemExit("this stand-in does not convert bit depths")
pathlib.Path(a.o).write_bytes(zlib.decompress(planes))
"""
TFCI = """#!{python} -ISE
import argparse, pathlib
p = argparse.ArgumentParser(allow_abbrev=False)
commands = p.add_subparsers(dest="command", required=True)
c = commands.add_parser("compress")
c.add_argument("model")
d = commands.add_parser("decompress")
for s in (c, d):
    s.add_argument("input_file")
    s.add_argument("output_file")
a = p.parse_args()
data = pathlib.Path(a.input_file).read_bytes()
if a.command == "compress":
    if not a.model.startswith("mbt2018-mean-mse-") or not data.startswith(b"\\x89PNG"):
        raise SystemExit("unknown model " + a.model)
    data = a.model[-1:].encode() + data
else:
    data = data[1:]
pathlib.Path(a.output_file).write_bytes(data)
"""


@pytest.fixture
def reference_software(tmp_path: Path) -> dict[str, str]:
    """Options of hm and vtm: an encoder, a decoder and a configuration."""
    config = tmp_path / "encoder_intra.cfg"
    config.write_text("IntraPeriod : 1\n")
    found = {"config": str(config)}
    for name, text in (("encoder", REFERENCE_ENCODER), ("decoder", REFERENCE_DECODER)):
        path = tmp_path / f"{name}App"
        path.write_text(text.format(python=sys.executable))
        path.chmod(0o755)
        found[name] = str(path)
    return found


@pytest.fixture
def tfci_script(tmp_path: Path) -> str:
    """Path of the stand-in for tfci.py."""
    path = tmp_path / "tfci.py"
    path.write_text(TFCI.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)
