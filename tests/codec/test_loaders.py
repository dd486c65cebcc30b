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


class TestZarr:
    """Arrays of format 3, by zarr alone: it finds the codec by its entry point."""

    @staticmethod
    def _made(
        folder: Path, array: np.ndarray, chunks: tuple[int, ...], shards: object = None, **settings: object
    ) -> object:
        zarr = pytest.importorskip("zarr", minversion="3.0")
        made = zarr.create_array(
            store=str(folder),
            shape=array.shape,
            chunks=chunks,
            shards=shards,
            dtype=array.dtype,
            serializer={"name": "latens", "configuration": settings},
            compressors=None,
        )
        made[:] = array
        return zarr.open_array(str(folder), mode="r")

    @pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2"])
    @pytest.mark.parametrize("shards", [None, (4, 40, 32)])
    def test_without_loss(self, dtype: str, shards: object, tmp_path: Path) -> None:
        array = np.random.default_rng(1).integers(0, 250, (5, 70, 33)).astype(dtype)
        found = self._made(tmp_path / "a", array, (2, 40, 16), shards)
        assert found.metadata.zarr_format == 3  # type: ignore[attr-defined]
        assert np.array_equal(found[:], array)  # type: ignore[index]
        assert np.array_equal(found[3, 41:50, 7:], array[3, 41:50, 7:])  # type: ignore[index]

    def test_colour_and_quality(self, tmp_path: Path) -> None:
        found = self._made(tmp_path / "a", PIXELS[None], (1, *PIXELS.shape), quality=80, channels=3)
        assert np.array_equal(found[0], latens.decode(latens.encode(PIXELS, 80)))  # type: ignore[index]

    def test_refused(self, tmp_path: Path) -> None:
        flat, colour = np.zeros(9, np.uint8), np.zeros((4, 4, 3), np.uint8)
        for array, chunks, settings in (
            (flat, (3,), {}),
            (flat.reshape(3, 3).astype(np.float32), (3, 3), {}),
            (colour, (4, 4, 1), {"channels": 3}),
            (colour, (4, 4, 3), {"channels": 2}),
        ):
            with pytest.raises(ValueError, match=r"expected uint8|channels must be"):
                self._made(tmp_path / "a", array, chunks, **settings)

    def test_chunks_of_another_shape_and_damage(self, tmp_path: Path) -> None:
        array = np.arange(60, dtype=np.uint8).reshape(5, 12)
        found = self._made(tmp_path / "a", array, (5, 12))
        (chunk,) = (path for path in (tmp_path / "a" / "c").rglob("*") if path.is_file())
        data = chunk.read_bytes()
        other = self._made(tmp_path / "b", array.reshape(12, 5), (12, 5))
        (theirs,) = (path for path in (tmp_path / "b" / "c").rglob("*") if path.is_file())
        assert np.array_equal(other[:].ravel(), array.ravel())  # type: ignore[index]
        chunk.write_bytes(theirs.read_bytes())
        with pytest.raises(LatensError, match="was expected"):
            found[:]  # type: ignore[index]
        for damaged in (b"", data[:-1], data[:9], data + b"1", bytes([data[0] ^ 1]) + data[1:]):
            chunk.write_bytes(damaged)
            with pytest.raises(LatensError):
                found[:]  # type: ignore[index]
