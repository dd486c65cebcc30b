"""Programs that know nothing of Latens: what loads data through Pillow, and arrays through numcodecs."""

import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import latens.pillow
import tiny
from latens.errors import LatensError

PIXELS = tiny.picture(40, 56)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    latens.pillow.register()
    path = tmp_path / "0001.ltn"
    Image.fromarray(PIXELS).save(path, lossless=True)
    return path


def test_a_folder_as_torchvision_reads_it(photo: Path) -> None:
    with photo.open("rb") as file, Image.open(file) as image:
        assert np.array_equal(image.convert("RGB"), PIXELS)


@pytest.mark.filterwarnings("ignore")
def test_datasets(photo: Path) -> None:
    datasets = pytest.importorskip("datasets")
    if not hasattr(datasets, "Features"):  # a folder of the tests has that name
        pytest.skip("Hugging Face's datasets is not installed")
    features = datasets.Features({"image": datasets.Image()})
    for given in (str(photo), {"bytes": photo.read_bytes(), "path": None}):
        found = datasets.Dataset.from_dict({"image": [given]}, features=features)[0]["image"]
        assert np.array_equal(found, PIXELS)


@pytest.mark.filterwarnings("ignore")
def test_webdataset(photo: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        shard.add(photo, "0001.ltn")

    def image(key: str, data: bytes) -> Image.Image | None:
        return Image.open(io.BytesIO(data)).convert("RGB") if key.endswith("ltn") else None

    samples = webdataset.WebDataset(str(tmp_path / "shard.tar"), shardshuffle=False).decode(image)
    assert np.array_equal(next(iter(samples))["ltn"], PIXELS)


@pytest.mark.filterwarnings("ignore")
def test_imageio(photo: Path) -> None:
    imageio = pytest.importorskip("imageio.v3")
    assert np.array_equal(imageio.imread(photo, plugin="pillow"), PIXELS)


class TestNumcodecs:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("shape", [(30, 40), (3, 30, 40), (2, 2, 5, 6), (0, 4, 5), (4, 0)])
    def test_arrays_without_loss(self, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        numcodecs = pytest.importorskip("numcodecs")
        codec = numcodecs.get_codec({"id": "latens"})
        array = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype)
        found = codec.decode(codec.encode(array))
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert np.array_equal(found, array)
        out = np.empty_like(array)
        codec.decode(codec.encode(array), out)
        assert np.array_equal(out, array)

    def test_colour_and_quality(self) -> None:
        numcodecs = pytest.importorskip("numcodecs")
        codec = numcodecs.get_codec({"id": "latens", "channels": 3, "quality": 80})
        found = codec.decode(codec.encode(PIXELS[None]))
        assert np.array_equal(found[0], latens.decode(latens.encode(PIXELS, 80)))
        assert numcodecs.get_codec(codec.get_config()) == codec

    def test_damage(self) -> None:
        numcodecs = pytest.importorskip("numcodecs")
        codec = numcodecs.get_codec({"id": "latens"})
        data = codec.encode(np.arange(60, dtype=np.uint8).reshape(2, 5, 6))
        for end in range(len(data)):
            with pytest.raises(LatensError):
                codec.decode(data[:end])
        with pytest.raises(LatensError, match="1 bytes follow"):
            codec.decode(data + b"\0")
        for bit in range(8 * len(data)):
            altered = bytearray(data)
            altered[bit // 8] ^= 1 << bit % 8
            with pytest.raises(LatensError):
                codec.decode(bytes(altered))
        many = data[:7] + struct.pack("<3I", 1 << 31, 1 << 31, 6) + data[19:]
        with pytest.raises(LatensError):
            codec.decode(many)

    @pytest.mark.parametrize("array", [np.zeros(4, np.uint8), np.zeros((2, 2)), np.zeros((2, 2), np.int16)])
    def test_arrays_that_are_refused(self, array: np.ndarray) -> None:
        numcodecs = pytest.importorskip("numcodecs")
        with pytest.raises(LatensError, match="expected uint8 or uint16"):
            numcodecs.get_codec({"id": "latens"}).encode(array)
