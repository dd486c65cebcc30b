"""Which frames are coded alone, which between others, in which order: on frames that nobody codes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from latens import format as ltn
from latens.codec.structure import Planned, Structure, plan
from latens.errors import VideoError
from latens.io import VideoFrame


def scenes(*lengths: int, size: tuple[int, int] = (72, 96), levels: int = 255) -> Iterator[VideoFrame]:
    """Scenes of patterns that move by three pixels a frame, one unlike the other."""
    time = 0
    for scene, length in enumerate(lengths):
        random = np.random.default_rng(scene)
        coarse = random.random((size[0] // 8 + 16, size[1] // 8 + 16))
        fine = np.kron(coarse, np.ones((8, 8)))
        fine = (fine + np.roll(fine, 4, 0) + np.roll(fine, 4, 1) + np.roll(fine, (4, 4), (0, 1))) / 4
        for t in range(length):
            luma = fine[t : t + size[0], 3 * t : 3 * t + size[1]] * levels
            luma = luma.astype(np.uint8 if levels == 255 else np.uint16)
            grey = np.full((-(-size[0] // 2), -(-size[1] // 2)), levels // 2, luma.dtype)
            yield VideoFrame((luma, grey, grey), time)
            time += 2


def keys(found: list[Planned]) -> list[int]:
    return [planned.number for planned in found if not planned.references]


@pytest.mark.parametrize("bframes", [0, 1, 3, 7])
@pytest.mark.parametrize("gop", [1, 2, 7, 12, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 26])
def test_orders_are_those_that_files_can_have(bframes: int, gop: int, count: int) -> None:
    found = list(plan(scenes(count), Structure(gop, bframes, scene_cuts=False)))
    header = ltn.VideoHeader(width=1, height=1, model="t", entropy_id="0" * 8, weights_id="0" * 8)
    order = ltn.FrameOrder(header)
    for planned in found:
        checksum = None if planned.references else 0
        order.add(
            ltn.Frame(
                planned.number, planned.frame.timestamp, planned.references, checksum, (ltn.Stream(1, b""),)
            )
        )
        assert planned.frame.timestamp == 2 * planned.number
    assert order.ready == count - 1
    assert not order.waiting
    assert keys(found) == list(range(0, count, gop))
    between = sum(len(planned.references) == 2 for planned in found)
    assert between or not bframes or min(gop, count) < 3
    assert bframes or not between


def test_what_is_inherited_is_better() -> None:
    bonus = {planned.number: planned.bonus for planned in plan(scenes(9), Structure(9, 3, scene_cuts=False))}
    assert bonus[0] > bonus[4] == bonus[8] > 0 > bonus[2] == bonus[6] > bonus[1] == bonus[3] == bonus[7]


@pytest.mark.parametrize("bframes", [0, 3, 7])
@pytest.mark.parametrize("levels", [255, 1023])
def test_scenes_begin_with_key_frames(bframes: int, levels: int) -> None:
    def found(gop: int, *lengths: int) -> list[int]:
        return keys(list(plan(scenes(*lengths, levels=levels), Structure(gop, bframes))))

    assert found(100, 9, 6, 11) == [0, 9, 15]
    # A scene of one frame, and one right after a key frame that was due.
    assert found(100, 5, 1, 6) == [0, 5, 6]
    assert found(4, 9, 6) == [0, 4, 8, 9, 13]
    assert keys(list(plan(scenes(9, 6), Structure(100, bframes, scene_cuts=False)))) == [0]


def test_longer_groups_where_nothing_moves() -> None:
    (frame,) = scenes(1)
    still = (VideoFrame(frame.planes, t) for t in range(17))
    for frames, distance in ((still, 8), (scenes(17), 4)):
        found = list(plan(frames, Structure(17, 7)))
        assert [planned.number for planned in found if len(planned.references) == 1] == list(
            range(distance, 17, distance)
        )


def test_noise_is_not_a_scene_for_each_frame() -> None:
    random = np.random.default_rng(0)
    grey = np.full((36, 48), 128, np.uint8)
    noise = [random.integers(0, 256, (72, 96), dtype=np.uint8) for _ in range(12)]
    found = plan((VideoFrame((luma, grey, grey), t) for t, luma in enumerate(noise)), Structure(100))
    assert len(keys(list(found))) <= 3


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (1100, 66)])
def test_any_size(size: tuple[int, int]) -> None:
    assert sorted(planned.number for planned in plan(scenes(3, size=size), Structure(100))) == [0, 1, 2]


def test_few_frames_are_held() -> None:
    taken = 0

    def endless() -> Iterator[VideoFrame]:
        nonlocal taken
        for frame in scenes(200):
            taken += 1
            yield frame

    for given, planned in enumerate(plan(endless(), Structure(10**9, 7, scene_cuts=False)), 1):
        assert taken - given <= 8
        if planned.number > 100:
            return


def test_times_that_go_back() -> None:
    frames = list(scenes(5))
    frames[3] = VideoFrame(frames[3].planes, 2)
    for bframes in (0, 3):
        with pytest.raises(VideoError, match="frame 3: its timestamp, 2, is not after 4"):
            list(plan(iter(frames), Structure(12, bframes)))


@pytest.mark.parametrize("values", [(0, 3), (-1, 3), (12, 2), (12, -1), (12, 10**6)])
def test_structures_that_there_are_not(values: tuple[int, int]) -> None:
    with pytest.raises(VideoError):
        Structure(*values)
