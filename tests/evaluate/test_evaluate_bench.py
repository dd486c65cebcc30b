"""The harness: figures are those of the files it keeps, and nothing that a codec does ends it."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny
from latens.errors import CodecError, DatasetError, ResultsError
from latens.evaluate import Plan, Results, bench
from latens.evaluate.bench import file_name


def plan(folder: Path, *codecs: str, **more: Any) -> Plan:
    given = {"settings": {}, "options": {}, "metrics": ("psnr_rgb", "psnr_y"), "repeats": 1} | more
    return Plan(folder, codecs, **given)


def test_figures_are_those_of_the_files(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    Image.fromarray(tiny.picture(170, 165)).save(photos / "tall.png")
    out = tmp_path / "r.json"
    wanted = plan(
        photos, "jpeg", "webp:method=0", "absent", settings={"jpeg": (30.0, 90.0), "webp:method=0": (50.0,)},
        metrics=("psnr_rgb", "ms_ssim"), repeats=2, match=(1.0,),
    )  # fmt: skip
    seen = []
    bench(wanted, out, command=("latens", "bench", "a b"), progress=lambda *row: seen.append(row))
    results = Results.load(out)
    assert len(results.points) == 3 * (2 + 1) + 2 * 3 == len(seen)
    assert list(results.skipped) == ["absent"]
    assert list(results.unreadable) == ["broken.png"]
    assert results.runs[0]["command"] == "latens bench 'a b'"
    assert not results.failures
    for point in results.points:
        suffix = results.codecs[point["codec"]]["suffix"]
        path = tmp_path / "r.files" / file_name(point["codec"], point["image"], point["setting"], suffix)
        assert path.stat().st_size == point["bytes"]
        original = np.asarray(Image.open(photos / point["image"]), np.float64)
        decoded = np.asarray(Image.open(path).convert("RGB"), np.float64)
        psnr = 10 * np.log10(255**2 / np.mean((original - decoded) ** 2))
        assert point["psnr_rgb"] == pytest.approx(psnr, abs=1e-4)
        assert point["bpp"] == pytest.approx(8 * point["bytes"] / original[..., 0].size, abs=1e-6)
        assert ("ms_ssim" in point) == (point["image"] == "tall.png")
        assert len(point["encode_s"]) == len(point["decode_s"]) == 2
    matched = [p for p in results.points if p.get("matched")]
    assert {p["codec"] for p in matched} == {"jpeg", "webp:method=0"}
    assert set(results.curves()["jpeg"].settings) == {30.0, 90.0}
    # Only what is new is done when the command is repeated.
    before = len(results.runs)
    seen.clear()
    bench(wanted, out, progress=lambda *row: seen.append(row))
    assert not seen
    assert len(Results.load(out).runs) == before
    more = replace(wanted, settings={**wanted.settings, "jpeg": (30.0, 60.0, 90.0)})
    bench(more, out, progress=lambda *row: seen.append(row))
    assert len(seen) == 3
    text = out.read_text()
    assert os.uname().nodename not in text or len(os.uname().nodename) < 4


def test_crashes_and_hangs_are_recorded_and_the_rest_goes_on(
    photos: Path, tmp_path: Path, programs: dict[str, str]
) -> None:
    out = tmp_path / "r.json"
    (photos / "plain.png").unlink()
    # Only what hangs has a limit that it can reach: the rest may take its time on a busy machine.
    hangs = plan(photos, "bpg", settings={"bpg": (1.0,)}, options={"bpg": programs}, time_limit=3.0)
    (hung,) = bench(hangs, tmp_path / "hangs.json").failures
    assert (hung["setting"], "longer than 3 seconds" in hung["reason"]) == (1.0, True)
    wanted = plan(
        photos, "bpg", "jpeg", settings={"bpg": (2.0, 3.0, 40.0), "jpeg": (50.0,)}, options={"bpg": programs},
        time_limit=86_400.0, keep_files=False,
    )  # fmt: skip
    results = bench(wanted, out)
    reasons = {(f["image"], f["setting"]): f["reason"] for f in results.failures}
    assert len(reasons) == 2
    image = "-<b>&.png"
    assert "SIGSEGV" in reasons[image, 2.0]
    assert "<script>" in reasons[image, 3.0]
    assert sorted((p["codec"], p["psnr_rgb"] is None) for p in results.points) == [
        ("bpg", True),
        ("jpeg", False),
    ]
    mark = (
        tmp_path / "child"
    )  # missing if the machine is so busy that the program was ended before it got there
    child = int(mark.read_text()) if mark.exists() else 0
    for _ in range(6000):  # it would sleep for a day
        status = Path(f"/proc/{child}/stat")
        if not child or not status.exists() or "Z" in status.read_text().split()[2]:
            break
        time.sleep(0.1)
    else:
        pytest.fail("what a codec had started outlived it")
    assert not (tmp_path / "r.files").exists()


def test_what_cannot_be_measured_is_said_at_once(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(DatasetError):
            bench(plan(folder, "jpeg"), out)
    (tmp_path / "empty" / "bad.png").write_bytes(b"bad")
    with pytest.raises(DatasetError, match="none of its images"):
        bench(plan(tmp_path / "empty", "jpeg"), out)
    with pytest.raises(CodecError, match="no codec can be used"):
        bench(plan(photos, "absent"), out)
    with pytest.raises(CodecError, match="quality 96 is not in"):
        bench(plan(photos, "jpeg", settings={"jpeg": (96.0,)}), out)
    out.write_text("{}")
    with pytest.raises(ResultsError, match="not a results file"):
        bench(plan(photos, "jpeg"), out)


def test_results_of_other_images_or_versions_are_not_continued(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    wanted = plan(photos, "jpeg", settings={"jpeg": (50.0,)})
    bench(wanted, out)
    content = json.loads(out.read_text())
    content["codecs"]["jpeg"]["version"] = "libjpeg 6b"
    out.write_text(json.dumps(content))
    with pytest.raises(CodecError, match="write to a new file"):
        bench(wanted, out)
    content["codecs"] = {}
    content["points"] = []
    out.write_text(json.dumps(content))
    Image.fromarray(tiny.picture(45, 51, seed=2)).save(photos / "plain.png")
    with pytest.raises(DatasetError, match="another image of that name"):
        bench(wanted, out)


def test_names_of_files_hold_nothing_dangerous() -> None:
    name = file_name("../x:y=/etc", "-../<b>\udcff.png", 1.5, ".jpg")
    assert name.count("/") == 1
    assert not name.startswith((".", "-", "/"))
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./")
    assert file_name("a:b", "x", 1, "") != file_name("a_b", "x", 1, "")
