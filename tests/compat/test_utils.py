"""``compressai.utils`` through the alias: CompressAI's options, JSON and numbers."""

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from latens import compat
from latens.errors import CodecError, LatensError, ResultsError
from latens.models import FactorizedPrior, MeanScaleHyperpriorVbr, ScaleSpaceFlow
from latens.ops import compute_padding
from tiny import picture


@pytest.fixture(autouse=True)
def installed():
    threads = torch.get_num_threads()
    compat.install()
    yield
    compat.uninstall()
    torch.set_num_threads(threads)


def tool(name):
    return importlib.import_module(f"compressai.utils.{name}.__main__")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (folder / "deep").mkdir()
    Image.fromarray(picture(200, 230)).save(folder / "a.png")
    Image.fromarray(picture(170, 180, seed=1)).save(folder / "deep" / "b.png")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mine.pth.tar"
    torch.manual_seed(1)
    torch.save({"epoch": 3, "state_dict": FactorizedPrior(16, 24).state_dict()}, path)
    return path


def psnr(a, b):
    return 10 * math.log10(255**2 / np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2))


class TestEvalModel:
    def test_numbers_are_those_of_the_definition(self, images, checkpoint, tmp_path, capsys):
        arguments = ["checkpoint", str(images), "-a", "bmshj2018-factorized", "-p", str(checkpoint)]
        tool("eval_model").main([*arguments, "-d", str(tmp_path), "-o", "mine", "--per-image"])
        shown = json.loads(capsys.readouterr().out)
        assert json.loads((tmp_path / "mine.json").read_text()) == shown
        assert (shown["name"], shown["description"]) == ("bmshj2018-factorized-mse", "Inference (ans)")
        model = FactorizedPrior.from_state_dict(torch.load(checkpoint)["state_dict"]).eval()
        model.update(force=True)
        rows = []
        for path in (images / "a.png", images / "deep" / "b.png"):
            with Image.open(path) as image:
                pixels = np.array(image)
            height, width = pixels.shape[:2]
            pad, unpad = compute_padding(height, width, min_div=64)
            x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
            coded = model.compress(F.pad(x, pad))
            decoded = F.pad(model.decompress(coded["strings"], coded["shape"])["x_hat"], unpad)
            found = (decoded[0].permute(1, 2, 0) * 255).round().numpy()
            rows.append((8 * len(coded["strings"][0][0]) / (height * width), psnr(pixels, found)))
        results = shown["results"]
        assert results["bpp"] == [pytest.approx(np.mean([bpp for bpp, _ in rows]))]
        assert results["psnr-rgb"] == [pytest.approx(np.mean([db for _, db in rows]), abs=1e-3)]
        assert set(results) == {"bpp", "psnr-rgb", "ms-ssim-rgb", "encoding_time", "decoding_time"}
        single = json.loads((tmp_path / "deep" / "b-mine-ans.json").read_text())
        assert single["results"]["bpp"] == pytest.approx(rows[1][0])
        tool("eval_model").main([*arguments, "--entropy-estimation"])
        estimated = json.loads(capsys.readouterr().out)
        assert estimated["description"] == "Inference (entropy estimation)"
        assert estimated["results"]["bpp"][0] == pytest.approx(results["bpp"][0], rel=0.05)

    def test_models_of_variable_rate(self, images, tmp_path, capsys):
        path = tmp_path / "v.pth.tar"
        torch.manual_seed(2)
        model = MeanScaleHyperpriorVbr(16, 24, vr_entbttlnck=True)
        with torch.no_grad():
            model.g_a[6].weight.mul_(200)  # latents that steps make a difference to
        torch.save(model.state_dict(), path)
        arguments = ["checkpoint", str(images), "-a", "mbt2018-mean-vbr", "-p", str(path)]
        for more in ([], ["--entropy-estimation"]):
            tool("eval_model").main([*arguments, "--vbr_quantstep", "1.0,8.0", *more])
            rates = json.loads(capsys.readouterr().out)["results"]["bpp"]
            assert len(rates) == 2
            assert rates[0] < rates[1]

    def test_wrong_arguments(self, tmp_path):
        for arguments in ([], ["pretrained"], ["--help"], ["pretrained", str(tmp_path), "-a", "mbt2018"]):
            with pytest.raises(SystemExit):
                tool("eval_model").main(arguments)


class TestOtherCodecs:
    def test_bench_measures_what_pillow_writes(self, images, capsys):
        tool("bench").main(["jpeg", str(images), "-q", "50,20", "-j", "2"])
        shown = json.loads(capsys.readouterr().out)
        assert shown["name"] == "JPEG"
        expected = []
        for quality in (20, 50):
            found = []
            for path in (images / "a.png", images / "deep" / "b.png"):
                with Image.open(path) as image:
                    file = path.with_suffix(".tested.jpg")
                    image.save(file, quality=quality)
                    with Image.open(file) as decoded:
                        size = 8 * file.stat().st_size / (image.width * image.height)
                        found.append((size, psnr(image, decoded)))
                    file.unlink()
            expected.append(np.mean(found, axis=0))
        np.testing.assert_allclose(shown["results"]["bpp"], [row[0] for row in expected])
        np.testing.assert_allclose(shown["results"]["psnr-rgb"], [row[1] for row in expected])

    @pytest.mark.parametrize(("metric", "target"), [("psnr-rgb", 33.0), ("bpp", 0.4)])
    def test_find_close(self, images, metric, target, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        tool("find_close").main(["webp", str(images / "a.png"), str(target), "-m", metric, "--save"])
        shown = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
        assert float(shown[metric]) == pytest.approx(target, rel=0.05)
        (saved,) = tmp_path.iterdir()
        with Image.open(images / "a.png") as a, Image.open(saved) as b:
            assert psnr(a, b) == pytest.approx(float(shown["psnr-rgb"]), abs=1e-3)

    def test_classes_are_where_scripts_look_for_them(self, images):
        from compressai.utils.bench.codecs import JPEG

        row, decoded = JPEG(None).run(images / "a.png", 75, ["ms-ssim-rgb"], return_rec=True)
        assert decoded.size == (230, 200)
        assert 0.9 < row["ms-ssim-rgb"] < 1
        with pytest.raises(CodecError, match="not in"):
            JPEG(None).run(images / "a.png", 1000)

    def test_programs_that_are_not_there(self, images, tmp_path):
        with pytest.raises(CodecError, match="no such program"):
            tool("bench").main(["vtm", str(images), "-b", str(tmp_path), "-c", "intra.cfg"])


class TestPlot:
    @pytest.mark.parametrize("metric", ["psnr", "psnr-rgb", "ms-ssim"])
    def test_pictures(self, metric, tmp_path, monkeypatch):
        pytest.importorskip("matplotlib")
        monkeypatch.chdir(tmp_path)
        curve = {"bpp": [0.1, 0.4], "psnr-rgb": [28.0, 32.0], "ms-ssim-rgb": [0.91, 0.97]}
        Path("r.json").write_text(json.dumps({"name": "mine", "results": curve}))
        tool("plot").main(["-f", "r.json", "-m", metric, "-o", "out.png", "--axes", "0", "1", "10", "40"])
        with Image.open("out.png") as image:
            assert image.size[0] > 500
        tool("plot").main(["-f", "r.json", "-m", metric])
        assert len(list(tmp_path.iterdir())) == 2

    def test_ms_ssim_is_in_db(self, tmp_path):
        from compressai.utils.plot import read_curve

        path = tmp_path / "r.json"
        path.write_text(json.dumps({"results": {"bpp": [1], "ms-ssim-rgb": [0.9]}}))
        assert read_curve(path, "ms-ssim").quality == [pytest.approx(10)]
        with pytest.raises(ResultsError, match="no list 'psnr-rgb'"):
            read_curve(path, "psnr")


class TestUpdateModel:
    def test_tables_and_name(self, checkpoint, tmp_path):
        tool("update_model").main(
            [str(checkpoint), "-a", "factorized-prior", "-n", "new", "-d", str(tmp_path)]
        )
        (written,) = tmp_path.iterdir()
        name, digits = written.name.removesuffix(".pth.tar").split("-")
        assert name == "new"
        assert __import__("hashlib").sha256(written.read_bytes()).hexdigest().startswith(digits)
        state = torch.load(written)
        assert state["entropy_bottleneck._cdf_length"].numel() == 24
        assert checkpoint.exists()

    def test_without_an_update(self, checkpoint, tmp_path):
        tool("update_model").main(
            [str(checkpoint), "-a", "factorized-prior", "--no-update", "-d", str(tmp_path)]
        )
        (written,) = tmp_path.iterdir()
        assert torch.load(written)["entropy_bottleneck._cdf_length"].numel() == 0

    def test_what_is_no_checkpoint(self, tmp_path):
        with pytest.raises(RuntimeError, match="no such file"):
            tool("update_model").main([str(tmp_path)])
        (tmp_path / "empty").touch()
        with pytest.raises(EOFError):
            tool("update_model").main([str(tmp_path / "empty")])
        (tmp_path / "text").write_text("not weights")
        with pytest.raises(LatensError):
            tool("update_model").main([str(tmp_path / "text")])


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    frames = [picture(192, 192, seed=4)[i : i + 128, 2 * i : 2 * i + 128] for i in range(3)]
    planes = b"".join(
        f[..., 1].tobytes() + f[::2, ::2, 2].tobytes() + f[::2, ::2, 0].tobytes() for f in frames
    )
    (folder / "clip_128x128_30fps_8bit_P420.yuv").write_bytes(planes)
    return folder


class TestVideo:
    def test_eval_model(self, videos, tmp_path, capsys):
        path = tmp_path / "v.pth.tar"
        torch.manual_seed(3)
        torch.save(ScaleSpaceFlow().state_dict(), path)
        for more in (["--keep_binaries"], ["--entropy-estimation"]):
            arguments = ["checkpoint", str(videos), str(tmp_path), "-a", "ssf2020", "-p", str(path)]
            tool("video.eval_model").main([*arguments, *more])
            shown = json.loads(capsys.readouterr().out)["results"]
            assert shown["q"] == [f"v-{'ans' if 'keep' in more[0] else 'entropy-estimation'}"]
            assert shown["psnr-yuv"][0] == pytest.approx(
                (4 * shown["psnr-y"][0] + shown["psnr-u"][0] + shown["psnr-v"][0]) / 6
            )
            if "keep" in more[0]:
                (coded,) = tmp_path.glob("*.bin")
                assert shown["bitrate"] == [pytest.approx(8 * coded.stat().st_size * 30 / 3000)]

    def test_bench(self, videos, tmp_path, capsys):
        pytest.importorskip("imageio_ffmpeg")
        tool("video.bench").main(["x264", str(videos), str(tmp_path), "-q", "20,40"])
        shown = json.loads(capsys.readouterr().out)
        results = shown["results"]
        assert shown["name"] == "x264-medium-tune-psnr-rgb"
        assert results["qp"] == [20, 40]
        assert results["bitrate"][0] > results["bitrate"][1]
        assert results["psnr-y"][0] > results["psnr-y"][1] > 15
        file = tmp_path / f"{shown['name']}.json"
        assert json.loads(file.read_text()) == shown
        if importlib.util.find_spec("matplotlib"):
            tool("video.plot").main(["-f", str(file), "-o", str(tmp_path / "c.png")])
            assert (tmp_path / "c.png").stat().st_size > 1000

    def test_wrong_arguments(self, tmp_path):
        for name, arguments in (("bench", ["x264"]), ("eval_model", ["pretrained"]), ("plot", ["-f", "x"])):
            with pytest.raises(SystemExit):
                tool(f"video.{name}").main(arguments)


@pytest.mark.parametrize("way", ["runner", "path"])
def test_as_programs(way, images):
    compat.uninstall()
    command = [sys.executable, "-m", "latens.compat"]
    environment = dict(os.environ)
    if way == "path":
        found = subprocess.run([*command, "--path"], capture_output=True, text=True, check=True)
        environment["PYTHONPATH"] = found.stdout.strip()
        command = [sys.executable]
    command += ["-m", "compressai.utils.bench", "jpeg", str(images), "-q", "60"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout)["name"] == "JPEG"


def test_scripts_run_on_the_alias(tmp_path):
    script = tmp_path / "script.py"
    (tmp_path / "beside.py").write_text("VALUE = 5")
    script.write_text(
        "import sys, beside, compressai.layers\n"
        "print(compressai.layers.GDN.__module__, beside.VALUE, sys.argv[1:], __name__)\n"
    )
    command = [sys.executable, "-m", "latens.compat", str(script), "a", "-b"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "latens.layers.gdn 5 ['a', '-b'] __main__\n"
