"""Weights that are not in the package: folder, cache and network, and what is said when there is no way."""

import hashlib
import shutil
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import latens
import tiny
from latens.cli import app
from latens.errors import DownloadError, UnavailableError, UnknownModelError, WrongWeightsError
from latens.zoo import ModelCard, card, cards, register_card
from latens.zoo.obtain import obtain, to_be_fetched
from latens.zoo.weights import load_released

CARDS = sys.modules["latens.zoo.cards"]


def _load(path: Path, weights_dir: Path | None = None) -> Image.Image:
    with latens.open(path, weights_dir=weights_dir) as image:
        image.load()
    return image


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of one's own, and no weights that are loaded already."""
    for name in ("LATENS_WEIGHTS_DIR", "LATENS_WEIGHTS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LATENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    load_released.cache_clear()
    yield
    load_released.cache_clear()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is what releases put their weights into."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(CARDS, "WEIGHTS_URL", f"http://127.0.0.1:{server.server_port}/weights")
    (folder / "weights").mkdir()
    yield folder / "weights"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def tiny_card(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> ModelCard:
    """``tiny-1``, a released set that has left the package."""
    monkeypatch.setattr(CARDS, "_CARDS", {c.id: c for c in (*cards(), *cards("video"))})
    digest = hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    made = ModelCard("tiny-1", "", "tiny-1.safetensors", digest, "Apache-2.0", (), "", 1, (1, 1), (0.1, 1.0))
    register_card(lambda: made)
    return made


def name_of(made: ModelCard) -> str:
    return made.url.rpartition("/")[2]


@pytest.fixture
def photo(tmp_path: Path, tiny_weights: Path) -> Path:
    path = tmp_path / "photo.ltn"
    path.write_bytes(latens.encode(tiny.picture(20, 30), model=tiny_weights))
    return path


def test_every_card_has_an_address_and_a_hash() -> None:
    for made in (*cards(), *cards("video")):
        assert made.url.startswith("https://")
        assert name_of(made) == f"{made.id}-{made.sha256[:8]}.safetensors"
        assert not to_be_fetched(made.id)


def test_fetched_once_and_named(
    served: Path,
    tiny_card: ModelCard,
    tiny_weights: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(tiny_weights, served / name_of(tiny_card))
    assert to_be_fetched("tiny-1")
    assert app.run(["decode", str(photo), "-o", str(tmp_path / "a.png")]) == 0
    said = capsys.readouterr().err.splitlines()[0]
    folder = tmp_path / "cache" / "models"
    assert said == f"tiny-1 is not in this package; fetching {tiny_card.url} to {folder}"
    assert (folder / name_of(tiny_card)).read_bytes() == tiny_weights.read_bytes()
    # From now on without a network.
    (served / name_of(tiny_card)).unlink()
    load_released.cache_clear()
    assert not to_be_fetched("tiny-1")
    decoded = latens.decode(photo.read_bytes())
    assert np.array_equal(decoded, latens.decode(photo.read_bytes(), model=tiny_weights))


def test_another_file_is_refused_and_not_kept(served: Path, tiny_card: ModelCard, tmp_path: Path) -> None:
    (served / name_of(tiny_card)).write_bytes(b"something else")
    with pytest.raises(
        DownloadError, match=f"what was received is another file .*{tiny_card.sha256}"
    ) as caught:
        obtain("tiny-1", "image")
    assert "delete" not in str(caught.value)
    kept = [path for path in (tmp_path / "cache/models").iterdir() if path.suffix != ".lock"]
    assert kept == []


def test_a_file_in_the_cache_that_is_another_is_refused(
    served: Path, tiny_card: ModelCard, tmp_path: Path
) -> None:
    (tmp_path / "cache/models").mkdir(parents=True)
    (tmp_path / "cache/models" / name_of(tiny_card)).write_bytes(b"something else")
    with pytest.raises(DownloadError, match="delete it"):
        obtain("tiny-1", "image")


def test_offline_says_what_to_fetch(
    tiny_card: ModelCard, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CARDS, "WEIGHTS_URL", "https://localhost:9")
    with pytest.raises(DownloadError) as caught:
        _load(photo)
    for part in (
        str(photo),
        "tiny-1",
        tiny_card.url,
        tiny_card.sha256,
        "--weights-dir",
        str(tmp_path / "cache"),
    ):
        assert part in str(caught.value)


def test_only_over_https(tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("http://example.org/weights", "ftp://example.org", "file:///etc"):
        monkeypatch.setenv("LATENS_WEIGHTS_URL", address)
        with pytest.raises(DownloadError, match="only HTTPS"):
            obtain("tiny-1", "image")


def test_a_mirror(
    served: Path, tiny_card: ModelCard, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(tiny_weights, served / name_of(tiny_card))
    mirror = card("tiny-1").url.rpartition("/")[0]
    monkeypatch.setattr(CARDS, "WEIGHTS_URL", "https://localhost:9")
    monkeypatch.setenv("LATENS_WEIGHTS_URL", mirror + "/")
    assert obtain("tiny-1", "image") == tiny_weights.read_bytes()


@pytest.mark.parametrize("long_name", [False, True])
def test_a_folder_of_ones_own(
    long_name: bool,
    tiny_card: ModelCard,
    tiny_weights: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(CARDS, "WEIGHTS_URL", "https://localhost:9")
    kept = tmp_path / "kept" / (name_of(tiny_card) if long_name else "tiny-1.safetensors")
    kept.parent.mkdir()
    shutil.copy(tiny_weights, kept)
    arguments = ["decode", str(photo), "-o", str(tmp_path / "a.png"), "--weights-dir"]
    assert app.run([*arguments, str(kept.parent)]) == 0
    assert "fetching" not in capsys.readouterr().err
    expected = latens.decode(photo.read_bytes(), model=tiny_weights)
    assert np.array_equal(_load(photo, weights_dir=kept.parent), expected)
    load_released.cache_clear()
    monkeypatch.setenv("LATENS_WEIGHTS_DIR", str(kept.parent))
    assert np.array_equal(_load(photo), expected)
    kept.write_bytes(b"something else")
    load_released.cache_clear()
    with pytest.raises(WrongWeightsError, match=tiny_card.sha256):
        _load(photo)
    assert app.run([*arguments, str(tmp_path / "missing"), "--force"]) == 2
    assert "missing: no such folder" in capsys.readouterr().err


def test_weights_that_were_never_released(tiny_weights: Path, photo: Path, tmp_path: Path) -> None:
    """Of one's own: the file names them, and only the folder has them."""
    with pytest.raises(UnknownModelError, match=r"--model; --weights-dir .* tiny-1\.safetensors"):
        _load(photo)
    shutil.copy(tiny_weights, tmp_path / "tiny-1.safetensors")
    assert _load(photo, weights_dir=tmp_path).size == (30, 20)


def test_sets_from_before_the_first_release(
    tiny_weights: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for media, model in (("image", "latens-base-5"), ("image", "latens-base-1"), ("video", "latens-video-4")):
        with pytest.raises(
            UnavailableError, match=r"from before the first release.*SHA-256 [0-9a-f]{64}"
        ) as caught:
            obtain(model, media)
        assert "newer" not in str(caught.value)
        assert f"{model}.safetensors" in str(caught.value)
    digest = hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    monkeypatch.setattr(CARDS, "_UNRELEASED", {"tiny-1": digest})
    shutil.copy(tiny_weights, tmp_path / "tiny-1.safetensors")
    assert _load(photo, weights_dir=tmp_path).size == (30, 20)
    monkeypatch.setattr(CARDS, "_UNRELEASED", {"tiny-1": "0" * 64})
    load_released.cache_clear()
    with pytest.raises(WrongWeightsError, match="expected " + "0" * 64):
        _load(photo, weights_dir=tmp_path)


def test_only_a_set_that_is_newer_is_called_newer() -> None:
    for model, newer in (
        ("latens-eye-999", True),
        ("latens-video-99", True),
        ("latens-other-99", False),
        ("x", False),
    ):
        with pytest.raises(UnknownModelError) as caught:
            card(model)
        assert ("newer than this release" in str(caught.value)) is newer


@pytest.mark.parametrize("name", ["../tiny-1", "/etc/passwd", "a/b", "", ".", "tiny-1\0", "\x1b[31m"])
def test_names_are_no_paths(name: str, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    shutil.copy(tiny_weights, tmp_path / "tiny-1.safetensors")
    with pytest.raises(UnknownModelError) as caught:
        obtain(name, "image", tmp_path / "inner")
    assert str(caught.value).isprintable()


def test_the_other_kind_of_model() -> None:
    with pytest.raises(UnknownModelError, match="a model of video, not of image"):
        obtain(cards("video")[0].id, "image")
