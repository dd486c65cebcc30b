"""Data sets: what their items are, and what they say of missing, damaged and wrong files."""

import contextlib
import json
import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from latens.datasets import (
    CacheDataset,
    ImageFolder,
    NdArrayDataset,
    PreGeneratedMemmapDataset,
    RawVideoSequence,
    StackDataset,
    VideoFolder,
    VideoFormat,
    Vimeo90kDataset,
    get_raw_video_file_info,
)
from latens.datasets.rawvideo import bitdepth_to_dtype, get_num_frms
from latens.errors import DatasetError


def save(path, value=0, size=(8, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def to_tensor(array):
    return torch.from_numpy(np.asarray(array).copy()).permute(2, 0, 1)


class TestImageFolder:
    def test_items_are_rgb_images_in_the_order_of_their_names(self, tmp_path):
        for value, name in ((3, "c.png"), (1, "a.png"), (2, "b.png")):
            save(tmp_path / "train" / name, value, mode="L")
        (tmp_path / "train" / "folder").mkdir()
        data = ImageFolder(tmp_path)
        assert len(data) == 3
        assert [data[i].mode for i in range(3)] == ["RGB"] * 3
        assert [data[i].getpixel((0, 0)) for i in range(3)] == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]

    def test_a_loader_batches_what_the_transform_makes(self, tmp_path):
        for i in range(4):
            save(tmp_path / "test" / f"{i}.png", (i, 0, 0))
        data = ImageFolder(str(tmp_path), transform=to_tensor, split="test")
        (batch,) = DataLoader(data, batch_size=4)
        assert batch.shape == (4, 3, 6, 8)
        assert batch[:, 0, 0, 0].tolist() == [0, 1, 2, 3]

    def test_missing_folder(self, tmp_path):
        with pytest.raises(DatasetError, match="train: no such folder"):
            ImageFolder(tmp_path)

    def test_a_file_that_is_no_image_is_named(self, tmp_path):
        (tmp_path / "train").mkdir()
        (tmp_path / "train" / "notes.txt").write_text("hello")
        data = ImageFolder(tmp_path)
        with pytest.raises(DatasetError, match=r"notes\.txt: cannot be read as an image"):
            data[0]

    def test_a_cut_image_is_named(self, tmp_path):
        save(tmp_path / "train" / "a.png", size=(200, 200))
        content = (tmp_path / "train" / "a.png").read_bytes()
        (tmp_path / "train" / "a.png").write_bytes(content[: len(content) // 2])
        with pytest.raises(DatasetError, match=r"a\.png"):
            ImageFolder(tmp_path)[0]


class TestVimeo90k:
    def test_every_frame_is_an_item(self, tmp_path):
        (tmp_path / "tri_trainlist.txt").write_text("00001/0001\n\n00001/0002\n")
        (tmp_path / "sep_testlist.txt").write_text("00001/0001")
        for clip in (1, 2):
            for frame in range(1, 8):
                save(tmp_path / f"sequences/00001/000{clip}/im{frame}.png", (clip, frame, 0))
        train = Vimeo90kDataset(tmp_path)
        assert len(train) == 6
        found = [train[i].getpixel((0, 0))[:2] for i in range(6)]
        assert found == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
        valid = Vimeo90kDataset(tmp_path, transform=to_tensor, split="valid", tuplet=7)
        assert len(valid) == 7
        assert valid[6][:, 0, 0].tolist() == [1, 7, 0]

    @pytest.mark.parametrize("options", [{"split": "test"}, {"tuplet": 5}, {}])
    def test_errors(self, tmp_path, options):
        with pytest.raises(DatasetError):
            Vimeo90kDataset(tmp_path, **options)


class TestVideoFolder:
    def clips(self, root, frames, split="train"):
        for name, count in frames.items():
            for i in range(count):
                save(root / "sequences" / name / f"{i:02}.png", (i, 0, 100))
        (root / f"{split}.list").write_text("\n".join(frames) + "\n\n")

    def test_items_are_the_first_three_frames(self, tmp_path):
        self.clips(tmp_path, {"a/1": 7, "a/2": 3})
        data = VideoFolder(tmp_path, transform=to_tensor)
        assert len(data) == 2
        for item in (data[0], data[1]):
            assert [frame.shape for frame in item] == [(3, 6, 8)] * 3
            assert [frame[:, 0, 0].tolist() for frame in item] == [[0, 0, 100], [1, 0, 100], [2, 0, 100]]

    @pytest.mark.parametrize(("count", "steps"), [(3, {1}), (4, {1}), (5, {1, 2}), (7, {1, 2, 3})])
    def test_random_distances_stay_inside_the_clip(self, tmp_path, count, steps):
        self.clips(tmp_path, {"a": count})
        data = VideoFolder(tmp_path, rnd_interval=True, transform=to_tensor)
        random.seed(1)
        items = [[int(frame[0, 0, 0]) for frame in data[0]] for _ in range(30)]
        assert {item[1] - item[0] for item in items} == steps
        assert all(item[2] - item[1] == item[1] - item[0] for item in items)

    def test_random_order_is_forward_or_backward(self, tmp_path):
        self.clips(tmp_path, {"a": 3})
        data = VideoFolder(tmp_path, rnd_temp_order=True, transform=to_tensor)
        random.seed(1)
        assert {tuple(int(f[0, 0, 0]) for f in data[0]) for _ in range(20)} == {(0, 1, 2), (2, 1, 0)}

    def test_errors(self, tmp_path):
        with pytest.raises(DatasetError, match="transform is needed"):
            VideoFolder(tmp_path)
        with pytest.raises(DatasetError, match="sequences: no such folder"):
            VideoFolder(tmp_path, transform=to_tensor)
        self.clips(tmp_path, {"short": 2, "good": 3})
        with pytest.raises(DatasetError, match=r"test\.list"):
            VideoFolder(tmp_path, transform=to_tensor, split="test")
        (tmp_path / "train.list").write_text("short\nmissing\ngood\nmixed")
        save(tmp_path / "sequences/mixed/a.png")
        save(tmp_path / "sequences/mixed/b.png")
        save(tmp_path / "sequences/mixed/c.png", size=(9, 9))
        data = VideoFolder(tmp_path, transform=to_tensor)
        for index, says in ((0, "at least 3 frames"), (1, "cannot be read"), (3, "not all of one size")):
            with pytest.raises(DatasetError, match=says):
                data[index]
        with pytest.raises(DatasetError, match="must make a tensor"):
            VideoFolder(tmp_path, transform=lambda x: x)[2]
        with pytest.raises(DatasetError, match=r"must make a tensor .*\(3, 6, 8\)"):
            VideoFolder(tmp_path, transform=lambda x: to_tensor(x)[:3])[2]


class TestPreGenerated:
    def test_patches(self, tmp_path):
        patches = np.random.default_rng(1).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
        patches.tofile(tmp_path / "training.npy")
        data = PreGeneratedMemmapDataset(tmp_path, image_size=(4, 6))
        assert len(data) == 5
        assert np.array_equal(np.asarray(data[3]), patches[3])
        square = patches[:4].reshape(8, 6, 2, 3)[:2].reshape(2, 6, 6)
        square.tofile(tmp_path / "validation.npy")
        valid = PreGeneratedMemmapDataset(tmp_path, transform=np.asarray, split="valid", image_size=2)
        assert len(valid) == 6
        assert valid[0].shape == (2, 2, 3)

    def test_errors(self, tmp_path):
        with pytest.raises(DatasetError, match="split"):
            PreGeneratedMemmapDataset(tmp_path, split="test")
        with pytest.raises(DatasetError, match=r"training\.npy: cannot be read"):
            PreGeneratedMemmapDataset(tmp_path)
        (tmp_path / "training.npy").write_bytes(b"")
        with pytest.raises(DatasetError, match=r"training\.npy: cannot be read"):
            PreGeneratedMemmapDataset(tmp_path)
        (tmp_path / "training.npy").write_bytes(bytes(100))
        with pytest.raises(DatasetError, match="not a whole number"):
            PreGeneratedMemmapDataset(tmp_path)
        with pytest.raises(DatasetError, match="at least 1"):
            PreGeneratedMemmapDataset(tmp_path, image_size=(0, 5))
        np.save(tmp_path / "training.npy", np.zeros((4, 8, 8, 3), np.uint8))
        with pytest.raises(DatasetError, match="NumPy header"):
            PreGeneratedMemmapDataset(tmp_path, image_size=8)


class TestArraysAndStacks:
    def test_arrays(self):
        a, b = np.arange(4), np.arange(8).reshape(4, 2)
        both = NdArrayDataset(a, b)
        assert len(both) == 4
        assert both[2][0] == 2
        assert both[2][1].tolist() == [4, 5]
        assert NdArrayDataset(b, single=True)[1].tolist() == [2, 3]

    def test_stacks(self):
        assert StackDataset([1, 2], [3, 4])[1] == (2, 4)
        named = StackDataset(a=[1, 2], b=[3, 4])
        assert named[0] == {"a": 1, "b": 3}
        assert len(named) == 2

    def test_errors(self):
        for make in (
            NdArrayDataset,
            lambda: NdArrayDataset(np.zeros(2), np.zeros(3)),
            lambda: NdArrayDataset(np.zeros(2), np.zeros(2), single=True),
            StackDataset,
            lambda: StackDataset([1], b=[2]),
            lambda: StackDataset([1], [2, 3]),
            lambda: StackDataset(a=[1], b=[2, 3]),
        ):
            with pytest.raises(DatasetError):
                make()


class Squares(CacheDataset):
    def __init__(self, *args, count=5, fail_at=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.count, self.fail_at, self.prepared = count, fail_at, 0
        self._ensure_cache()

    def _get_items(self):
        return range(self.count)

    def _load_item(self, item):
        if item == self.fail_at:
            raise KeyboardInterrupt
        self.prepared += 1
        return {"x": torch.full((2, 3), item), "y": np.float32(item**2)}


class TestCache:
    def test_items_are_prepared_once(self, tmp_path, capsys):
        root = tmp_path / "deep" / "cache"
        first = Squares(root)
        assert (first.prepared, len(first)) == (5, 5)
        second = Squares(root, transform=lambda item: (item["x"].shape, float(item["y"])))
        assert second.prepared == 0
        assert second[4] == ((2, 3), 16.0)
        item = first[3]
        assert item["x"].dtype == np.int64
        item["x"][:] = 0
        assert first[3]["x"].tolist() == [[3, 3, 3], [3, 3, 3]]

    def test_pre_transform_is_stored(self, tmp_path):
        data = Squares(tmp_path, pre_transform=lambda item: {"sum": item["x"].sum() + item["y"]})
        assert [float(data[i]["sum"]) for i in range(3)] == [0.0, 7.0, 16.0]

    def test_an_interrupted_preparation_starts_anew(self, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            Squares(tmp_path, fail_at=3)
        assert Squares(tmp_path).prepared == 5

    def test_items_must_be_alike(self, tmp_path):
        class Ragged(Squares):
            def _load_item(self, item):
                return {"x": np.zeros(item + 1)}

        with pytest.raises(DatasetError, match="item 1"):
            Ragged(tmp_path)

    @pytest.mark.parametrize(
        "info",
        [
            b"{",
            b"[]",
            b"{}",
            b'{"x": 3}',
            b'{"x": {"dtype": "int64", "shape": [50, 2, 3]}}',
            b'{"x": {"dtype": "int64", "shape": [4, 2, 3]}}',
            b'{"x": {"dtype": "int64", "shape": [-1, 2, 3]}}',
            b'{"x": {"dtype": "object", "shape": [5, 2, 3]}}',
            b'{"../x": {"dtype": "int64", "shape": [5, 2, 3]}}',
            b'{"z": {"dtype": "int64", "shape": [5, 2, 3]}}',
            b'{"x": {"dtype": "int64", "shape": [5, 2, 3]}, "y": {"dtype": "uint8", "shape": [20]}}',
            b" " * (1 << 21),
        ],
    )
    def test_damage(self, tmp_path, info):
        Squares(tmp_path)
        (tmp_path / "info.json").write_bytes(info)
        with pytest.raises(DatasetError):
            Squares(tmp_path)

    def test_what_is_written_is_bare_values_and_their_description(self, tmp_path):
        Squares(tmp_path)
        info = json.loads((tmp_path / "info.json").read_text())
        assert info["y"] == {"dtype": "float32", "shape": [5]}
        assert np.fromfile(tmp_path / "y.npy", np.float32).tolist() == [0, 1, 4, 9, 16]

    def test_a_folder_is_needed(self):
        with pytest.raises(DatasetError, match="cache_root"):
            CacheDataset()


class TestRawVideo:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("Ball_416x240_50Hz_8bit_P420.yuv", (416, 240, Fraction(50), 8, VideoFormat.YUV420, None)),
            ("R_1920x1080_59.94fps_10bit_420.yuv", (1920, 1080, Fraction(60000, 1001), 10, "yuv420", None)),
            ("R_1920x1080_30fps_I420_10LE.yuv", (1920, 1080, Fraction(30), 10, "yuv420", "le")),
            ("r_64x32_25Hz_yuv420p10le.yuv", (64, 32, Fraction(25), 10, "yuv420", "le")),
            ("r_64x32_yuv422p16be.raw", (64, 32, None, 16, "yuv422", "be")),
            ("R_64X32_Y42B.YUV", (64, 32, None, 8, "yuv422", None)),
            ("x_1420x4200_12.5Hz_P444.yuv", (1420, 4200, Fraction(25, 2), 8, "yuv444", None)),
            ("x_64x32_30fps_yuv400.yuv", (64, 32, Fraction(30), 8, "yuv400", None)),
            ("640x480_420/x_64x32_i422.yuv", (64, 32, None, 8, "yuv422", None)),
            ("x_64x32_420_8bit_YUV.yuv", (64, 32, None, 8, "yuv420", None)),
            ("x_64x32.yuv", (64, 32, None, 8, None, None)),
        ],
    )
    def test_names(self, name, expected):
        info = get_raw_video_file_info(name)
        width, height, rate, bits, layout, endianness = expected
        assert (info["width"], info["height"], info["framerate"]) == (width, height, rate)
        assert (info["bitdepth"], info["endianness"]) == (bits, endianness)
        assert info["format"] is (layout and VideoFormat(layout))

    def test_frames_of_a_size(self):
        size = 10 * 3 * 6 * 4  # 4:2:0, two bytes a sample
        assert get_num_frms(size, 6, 4, VideoFormat.YUV420, np.uint16) == 10
        assert get_num_frms(size - 1, 6, 4, VideoFormat.YUV420, bitdepth_to_dtype[12]) == 9

    def test_a_name_that_says_nothing(self):
        assert get_raw_video_file_info("holiday.bin") == {}

    def test_a_name_that_contradicts_itself(self):
        with pytest.raises(DatasetError, match=r"two bit depths, \[8, 10\]"):
            get_raw_video_file_info("x_64x32_8bit_yuv420p10le.yuv")

    @given(st.text(max_size=40))
    def test_any_name_is_read_or_refused(self, name):
        with contextlib.suppress(DatasetError):
            get_raw_video_file_info(name)

    @pytest.mark.parametrize(
        ("layout", "chroma"),
        [("yuv420", (5, 9)), ("yuv422", (9, 9)), ("yuv444", (9, 17)), ("yuv400", (0, 0))],
    )
    @pytest.mark.parametrize(("bits", "kind"), [(8, np.uint8), (10, np.uint16)])
    def test_planes_of_frames(self, tmp_path, layout, chroma, bits, kind):
        rng = np.random.default_rng(1)
        frames = [
            [rng.integers(0, 1 << bits, shape, dtype=kind) for shape in ((9, 17), chroma, chroma)]
            for _ in range(3)
        ]
        path = tmp_path / f"clip_17x9_25fps_{bits}bit_{layout}.yuv"
        path.write_bytes(b"".join(plane.tobytes() for frame in frames for plane in frame))
        video = RawVideoSequence.from_file(path)
        assert (len(video), video.total_frms, video.framerate) == (3, 3, 25)
        for found, frame in zip(video, frames, strict=True):
            for name, plane in zip("yuv", frame, strict=True):
                assert np.array_equal(found[name], plane)
        assert video[1:]["y"].shape == (2, 9, 17)
        same = tmp_path / "plain"
        same.write_bytes(path.read_bytes())
        assert np.array_equal(RawVideoSequence.new_like(video, same)[2]["y"], frames[2][0])
        video.close()

    def test_errors(self, tmp_path):
        path = tmp_path / "clip.yuv"
        path.write_bytes(bytes(8 * 8 * 3 // 2 + 1))
        size = {"width": 8, "height": 8}
        for options, says in (
            ({}, "give them as arguments"),
            (size, "give them as arguments"),
            ({**size, "format": "420"}, "not a whole number of frames"),
            ({**size, "format": "rgba"}, "unknown format"),
            ({**size, "format": VideoFormat.RGB}, "expected a YUV format"),
            ({**size, "format": "420", "bitdepth": 9}, "bit depth"),
            ({"width": -8, "height": 8, "format": "420"}, "at least 1x1"),
        ):
            with pytest.raises(DatasetError, match=says):
                RawVideoSequence.from_file(path, **options)
        for name, says in (
            ("missing_8x8_420.yuv", "cannot be read"),
            ("big_8x8_yuv420p10be.yuv", "little-endian"),
        ):
            with pytest.raises(DatasetError, match=says):
                RawVideoSequence.from_file(tmp_path / name)
        (tmp_path / "empty_8x8_420.yuv").write_bytes(b"")
        with pytest.raises(DatasetError, match="cannot be read"):
            RawVideoSequence.from_file(tmp_path / "empty_8x8_420.yuv")
