"""Every example runs, with settings so small that it takes seconds."""

import http.client
import importlib.util
import io
import runpy
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from latens.models import MeanScaleHyperprior

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(tiny.picture(130, 150)).save(path)
    return path


def script(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    with torch.random.fork_rng(devices=[]):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_train_a_codec(monkeypatch: pytest.MonkeyPatch, capsys: Any, photo: Path) -> None:
    script(monkeypatch, "train_codec.py", photo, photo, "--steps", 1)
    out = capsys.readouterr().out
    assert "step 0: loss" in out
    assert "bytes, " in out
    assert len((EXAMPLES / "train_codec.py").read_text().splitlines()) <= 60


def test_a_handwritten_latent_codec(monkeypatch: pytest.MonkeyPatch, capsys: Any, photo: Path) -> None:
    script(monkeypatch, "autoregressive_codec.py", photo, "--steps", 2)
    assert "decoded without loss" in capsys.readouterr().out


def test_load_a_checkpoint(monkeypatch: pytest.MonkeyPatch, capsys: Any, photo: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = MeanScaleHyperprior(8, 12).state_dict()
    # As old releases saved it, in training.
    old = {f"module.{key.replace('.matrices.', '._matrices.')}": value for key, value in weights.items()}
    torch.save({"state_dict": old, "epoch": 3}, tmp_path / "old.pth.tar")
    arguments = (tmp_path / "old.pth.tar", "MeanScaleHyperprior", photo)
    script(monkeypatch, "load_compressai_checkpoint.py", *arguments)
    out = capsys.readouterr().out
    assert f"{sum(p.numel() for p in MeanScaleHyperprior(8, 12).parameters()):,} parameters" in out
    assert "bits per pixel" in out


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[ModuleType, int]]:
    spec = importlib.util.spec_from_file_location("web_service", EXAMPLES / "web_service.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.Handler.log_message = lambda *_: None
    server = module.serve(0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield module, server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def post(port: int, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    result = response.status, response.read()
    connection.close()
    return result


def test_the_web_service_codes_pictures(service: tuple[ModuleType, int], photo: Path) -> None:
    module, port = service
    status, data = post(port, "/encode?quality=30", photo.read_bytes())
    assert status == 200
    assert data == module.encode(photo.read_bytes(), 30.0)
    status, png = post(port, "/decode", data)
    assert status == 200
    with Image.open(io.BytesIO(png)) as image:
        error = np.asarray(image).astype(float) - tiny.picture(130, 150)
    assert np.mean(error**2) < 300


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/decode", b"no file of Latens", {}, 400),
        ("/encode", b"no picture", {}, 400),
        ("/encode?quality=much", b"", {}, 400),
        ("/encode?quality=101", None, {}, 400),
        ("/other", b"", {}, 404),
        ("/encode", b"", {"Content-Length": str(1 << 40)}, 413),
        ("/encode", b"", {"Content-Length": "-1"}, 413),
    ],
)
def test_the_web_service_refuses(
    service: tuple[ModuleType, int], photo: Path, path: str, body: bytes | None, headers: Any, status: int
) -> None:
    found, text = post(service[1], path, photo.read_bytes() if body is None else body, **headers)
    assert found == status
    assert text.count(b"\n") == 1


@pytest.mark.slow
def test_the_notebook(monkeypatch: pytest.MonkeyPatch, photo: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("LATENS_PHOTO", str(photo))
    monkeypatch.setenv("LATENS_STEPS", "2")
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = nbformat.read(EXAMPLES / "walkthrough.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    nbclient.NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(EXAMPLES)}}
    ).execute()
    kinds = [
        kind for cell in notebook.cells for out in cell.get("outputs", ()) for kind in out.get("data", ())
    ]
    assert kinds.count("image/png") >= 8
