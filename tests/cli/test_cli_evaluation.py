"""Commands that measure and compare."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny
from latens.zoo import DEFAULT_MODEL

Run = Callable[..., Any]
Fails = Callable[..., str]


@pytest.fixture
def photos(work: Path) -> Path:
    folder = work / "-photos"
    folder.mkdir()
    for seed, name in enumerate(("a.png", "-b.png")):
        Image.fromarray(tiny.picture(170, 164, seed=seed)).save(folder / name)
    return folder


def test_bench_report_and_plot_belong_together(latens: Run, photos: Path, work: Path) -> None:
    (photos / "c.png").write_bytes(b"no image")
    points = ("-p", "jpeg=10,30,60,90", "-p", "webp:method=0=10,30,60,90")
    options = ("-c", "jpeg,webp:method=0,absent", *points, "--repeats", "1")
    result = latens("bench", *options, "-o", "r.json", "--", "-photos")
    assert result.code == 3, result.err
    assert "skipped: absent: absent: no such codec" in result.err
    assert "not read: c.png" in result.err
    assert "r.json: 16 points" in result.err
    result = latens("report", "r.json", "-o", "r.html")
    assert result.code == 0, result.err
    assert (work / "r.html").read_text().startswith("<!doctype html>")
    pytest.importorskip("matplotlib")
    assert latens("plot", "r.json", "-o", "r.png", "--log").code == 0
    with Image.open("r.png") as image:
        assert image.size == (1440, 960)


def test_bench_without_a_terminal_says_a_line_now_and_then(
    latens: Run, photos: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latens.cli import evaluation

    arguments = ("bench", photos, "-c", "jpeg", "-p", "jpeg=50", "--metrics", "psnr_rgb", "--repeats", "1")
    silent = latens(*arguments, "-o", "a.json")
    assert silent.err.splitlines() == ["a.json: 2 points"]
    monkeypatch.setattr(evaluation, "_LINE_SECONDS", 0.0)
    lines = latens(*arguments, "-o", "b.json").err.splitlines()
    assert [line for line in lines if re.fullmatch(r"\d of 2: jpeg .*", line)]
    assert lines[-1] == "b.json: 2 points"


def test_eval_writes_the_layout_of_compressai(
    latens: Run, photos: Path, work: Path, tiny_weights: Path
) -> None:
    (photos / "c.png").write_bytes(b"no image")
    result = latens(
        "eval", "./-photos", "--model", tiny_weights, "-q", "30,90", "--json", "--per-image", "-o", "e.json"
    )
    assert result.code == 3
    assert "not read: c.png" in result.err
    content = json.loads(result.out)
    assert content == json.loads((work / "e.json").read_text())
    assert set(content["results"]) >= {"psnr-rgb", "ms-ssim-rgb", "bpp", "encoding_time", "decoding_time"}
    assert list(content["images"]) == ["-b.png", "a.png"]
    # The same, file by file, through the commands for everybody.
    for place, quality in enumerate(("30", "90")):
        rates, values = [], []
        for name in content["images"]:
            assert (
                latens(
                    "encode", f"./-photos/{name}", "-q", quality, "-m", tiny_weights, "-o", "x.ltn", "-f"
                ).code
                == 0
            )
            assert latens("decode", "x.ltn", "-m", tiny_weights, "-o", "x.png", "-f").code == 0
            rates.append(8 * (work / "x.ltn").stat().st_size / (170 * 164))
            a, b = (np.asarray(Image.open(p), np.float64) for p in (photos / name, "x.png"))
            values.append(10 * np.log10(255**2 / np.mean((a - b) ** 2)))
        assert content["results"]["bpp"][place] == pytest.approx(np.mean(rates))
        assert content["results"]["psnr-rgb"][place] == pytest.approx(np.mean(values), abs=1e-4)
    result = latens("eval", photos / "a.png", "--model", tiny_weights, "-q", "50")
    assert result.code == 0
    assert b"1 images. Real files. tiny-1" in result.out


def test_eval_takes_checkpoints_of_architectures(latens: Run, photos: Path, work: Path) -> None:
    import torch

    from latens.models import MeanScaleHyperprior

    torch.manual_seed(0)
    torch.save(MeanScaleHyperprior(8, 12).state_dict(), work / "c.pth")
    base = ("eval", photos / "a.png", "--model", "mbt2018-mean", "--checkpoint", "c.pth", "--json")
    real, estimated = (json.loads(latens(*base, *more).out) for more in ((), ("--entropy-estimation",)))
    assert estimated["results"]["psnr-rgb"] == pytest.approx(real["results"]["psnr-rgb"], abs=0.01)
    assert estimated["results"]["bpp"][0] < real["results"]["bpp"][0]
    assert "encoding_time" not in estimated["results"]
    half = json.loads(latens(*base, "--half").out)
    assert half["results"]["psnr-rgb"] == pytest.approx(real["results"]["psnr-rgb"], abs=0.5)


def test_find_says_what_it_found(latens: Run, photos: Path, work: Path) -> None:
    result = latens(
        "find", photos / "a.png", "--codec", "jpeg", "--metric", "psnr", "--target", "33", "--json", "-o", "f.jpg",
        "--decoded", "f.png",
    )  # fmt: skip
    assert result.code == 0, result.err
    row = json.loads(result.out)
    assert row["psnr_rgb"] == pytest.approx(33, abs=0.4)
    assert row["bytes"] == (work / "f.jpg").stat().st_size
    assert np.array_equal(Image.open("f.png"), Image.open("f.jpg").convert("RGB"))
    assert b"jpeg quality" in latens("find", photos / "a.png", "-c", "jpeg", "-t", "33").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench", "none"), "no such folder"),
        (("bench", "empty"), "no images in it"),
        (("bench", "x.png", "-c", "jpeg", "-p", "webp=3"), "expected CODEC=NUMBERS"),
        (("bench", "x.png", "-c", "jpeg", "-p", "jpeg=a"), "expected numbers"),
        (("bench", "x.png", "-c", "jpeg", "-o", "none/r.json"), "does not exist"),
        (("report", "none.json"), "cannot be read"),
        (("plot", "x.png", "-o", "p.png"), "damaged JSON"),
        (("plot", "c.json", "--metric", "beauty", "-o", "p.png"), "expected one of"),
        (("plot", "c.json", "--only", "b", "-o", "p.png"), "no curve b"),
        (("plot", "c.json"), "give a picture"),
        (("bench", "x.png", "--metrics", "psnr_rgb,beauty"), "expected some of ssimulacra2"),
        (("encode", "x.png", "--tune", "taste"), "tuned for 'taste'"),
        (("encode", "x.png", "--tune", "psnr", "-m", DEFAULT_MODEL), "--model or --tune"),
        (("encode", "x.png", "--target-ssimulacra2", "70", "-q", "3"), "not several"),
        (("encode", "x.png", "--target-ssimulacra2", "100.5"), "no scores above 100"),
        (("fit-quality", DEFAULT_MODEL, "empty", "-o", "q.json"), "no images in it"),
        (("fit-quality", DEFAULT_MODEL, ".", "-o", "q.json"), "no photographs of 256 pixels"),
        (("find", "x.png", "-t", "30", "-c", "none"), "no such codec"),
        (("find", "x.png", "-t", "30", "--metric", "beauty"), "expected one of"),
        (("eval", "empty"), "no images in it"),
        (("eval", "x.png", "-m", DEFAULT_MODEL, "--checkpoint", "c"), "are for architectures"),
        (("eval", "x.png", "-m", DEFAULT_MODEL, "--entropy-estimation"), "architectures of the zoo only"),
        (("eval", "x.png", "-m", DEFAULT_MODEL, "--vbr-steps", "1"), "no model of variable rate"),
        (("eval", "x.png", "-m", DEFAULT_MODEL, "-q", "101"), "not in 0 to 100"),
    ],
)
def test_mistakes_are_explained(fails: Fails, work: Path, arguments: tuple[str, ...], message: str) -> None:
    (work / "empty").mkdir()
    Image.fromarray(tiny.picture(20, 20)).save(work / "x.png")
    (work / "c.json").write_text('{"name": "c", "results": {"bpp": [1, 2], "psnr-rgb": [30, 31]}}')
    assert message in fails(*arguments)
