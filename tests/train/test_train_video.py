"""Training of the default video model: sequences, a step, going on exactly where it stopped, weights files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from latens import zoo
from latens.errors import ModelError, TrainingError
from latens.models.video import LatensVideoConfig, ScaleSpaceFlow
from latens.train import TrainConfig, Trainer, save_weights
from latens.train.data import PhotoPool
from latens.train.objectives import model_of
from latens.train.sequences import ClipPool, SequenceSampler
from latens.zoo.weights import load_video, save

SIDE = 96


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like Vimeo-90k's, of pictures that say where and when they are from, and one with a single picture."""
    folder = tmp_path_factory.mktemp("clips")
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    for name, count in (("00001/0001", 12), ("00001/0002", 7), ("00002/0001", 1)):
        (folder / name).mkdir(parents=True)
        for t in range(count):
            pixels = np.stack([2 * y, 2 * x, np.full_like(x, 20 * t)], 2).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"im{t + 1}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(tiny.picture(150, 200)).save(folder / "a.png")
    return folder


@pytest.fixture
def make(
    clips: Path, photos: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Trainer]:
    image = tmp_path / "tiny.safetensors"
    zoo.save(tiny.network(), image, "tiny")

    def trainer(run: str = "run", **changes: Any) -> Trainer:
        config = TrainConfig(
            architecture="latens-video", clips=str(clips), data=str(photos), image_model=str(image), batch=2, crop=64,
            warmup=1, ema=0.9, sequence=((0, 2), (1, 3)), video=LatensVideoConfig(0, 1), min_slope=0.0,
        )  # fmt: skip
        return Trainer(replace(config, **changes), tmp_path / run)

    return trainer


class TestSequences:
    def test_frames_of_a_clip(self, clips: Path) -> None:
        pool = ClipPool(clips)
        assert [(clip.name, len(clip)) for clip in pool.clips] == [("00001/0001", 12), ("00001/0002", 7)]
        sampler = SequenceSampler(None, pool.clips, 16, 0.0, seed=1)
        x = sampler(0, 64, 4).view(16, 4, 3, 64, 64) * 255
        assert torch.equal(x, x.round())
        times = (x[:, :, 2] / 20).round()
        assert torch.equal(times.amin((2, 3)), times.amax((2, 3)))
        steps = times[:, :, 0, 0].diff(dim=1)
        # Evenly spaced, in both directions; and the place is the same in all frames.
        assert torch.equal(steps.amin(1), steps.amax(1))
        assert set(steps[:, 0].tolist()) <= {-3.0, -2.0, -1.0, 1.0, 2.0, 3.0}
        assert len(set(steps[:, 0].tolist())) > 2
        assert torch.equal(x[:, :1, :2].expand(-1, 4, -1, -1, -1), x[:, :, :2])
        assert torch.equal(sampler(0, 64, 4), x.flatten(1, 2) / 255)
        assert not torch.equal(sampler(1, 64, 4), x.flatten(1, 2) / 255)
        assert torch.equal(sampler(0, 64, 4, chosen=[3, 1]), (x.flatten(1, 2) / 255)[[3, 1]])

    def test_more_frames_than_there_are(self, clips: Path) -> None:
        (clip,) = [clip for clip in ClipPool(clips).clips if len(clip) == 7]
        x = SequenceSampler(None, [clip], 1, 1.0, seed=1)(0, 64, 16).view(16, 3, 64, 64)
        assert (x[1:] != x[:-1]).flatten(1).any(1).all()

    def test_photographs_move(self, photos: Path) -> None:
        x = SequenceSampler(PhotoPool.load(photos), [], 12, 0.5, seed=2)(0, 64, 3).view(12, 3, 3, 64, 64)
        change = (x[:, 1:] - x[:, :-1]).abs().mean((2, 3, 4))
        assert change.max() > 0.01
        assert change.min() < 0.02
        assert 0 <= x.min() < x.max() <= 1

    def test_videos(self, tmp_path: Path) -> None:
        pytest.importorskip("av")
        from latens.io import VideoFrame, VideoInfo, VideoSink

        about = VideoInfo(64, 64, chroma="4:4:4")
        with VideoSink(str(tmp_path / "clip.y4m"), about) as sink:
            for t in range(4):
                planes = [np.full((64, 64), v, np.uint8) for v in (16 + 40 * t, 128, 128)]
                sink.add(VideoFrame(tuple(planes), t))  # type: ignore[arg-type]
        (tmp_path / "broken.mp4").write_bytes(b"nothing")
        for _ in range(2):  # the second time from the cache
            pool = ClipPool(tmp_path, tmp_path / "cache")
            assert pool.skipped == ["broken.mp4"]
            frames = pool.clips[0].read(range(4))
            assert [round(float(f.mean()) / 255 * 219 / 40) for f in frames] == [0, 1, 2, 3]

    def test_no_clips(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="no clip"):
            ClipPool(tmp_path)
        with pytest.raises(TrainingError, match="folder"):
            ClipPool(tmp_path / "missing")


class TestRuns:
    def test_a_step(self, make: Callable[..., Trainer]) -> None:
        trainer = make()
        before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
        image = {k: v.clone() for k, v in trainer.model.image.state_dict().items()}
        figures = trainer.train_step(trainer.crops(0))
        assert all(np.isfinite(v) for v in figures.values())
        moved = [k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])]
        assert len(moved) > 0.8 * len(before)
        assert all(torch.equal(v, image[k]) for k, v in trainer.model.image.state_dict().items())

    def test_goes_on_exactly(self, make: Callable[..., Trainer]) -> None:
        whole = make("whole", steps=4, decay_start=2)
        whole.run()
        first = make("parts", steps=4, decay_start=2)
        for _ in range(2):
            first.train_step(first.crops(first.step))
        first.save()
        second = make("parts", steps=4, decay_start=2)
        assert second.resumed
        second.run()
        for name, value in whole.model.state_dict().items():
            assert torch.equal(value, second.model.state_dict()[name]), name

    def test_sequences_become_longer(self, make: Callable[..., Trainer]) -> None:
        trainer = make()
        assert [trainer.crops(step).shape for step in (0, 1)] == [(2, 6, 64, 64), (2, 9, 64, 64)]

    def test_weights_and_validation(self, make: Callable[..., Trainer], tmp_path: Path) -> None:
        (tmp_path / "held.txt").write_text("00001/0002\n")
        trainer = make(holdout=str(tmp_path / "held.txt"))
        assert [clip.name for clip in trainer.clips] == ["00001/0001"]
        trainer.train_step(trainer.crops(0))
        rows = trainer.validate()
        assert [row["bpp"] for row in rows] == sorted(row["bpp"] for row in rows)
        assert rows[-1]["db"] > rows[0]["db"]
        trainer.save()
        save_weights(tmp_path / "run" / "checkpoint.pt", tmp_path / "mine.safetensors", "mine-1")
        loaded = load_video(tmp_path / "mine.safetensors")
        # In integers; the same checkpoint makes the same file.
        save_weights(tmp_path / "run" / "checkpoint.pt", tmp_path / "again.safetensors", "mine-1")
        assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "mine.safetensors").read_bytes()
        assert loaded.exact
        with pytest.raises(TrainingError, match="integers only"):
            Trainer(trainer.config, tmp_path / "branched", branch_from=tmp_path / "mine.safetensors")

    def test_configurations(self, make: Callable[..., Trainer], tmp_path: Path) -> None:
        config = make().config
        assert TrainConfig.from_json(config.to_json()) == config
        assert config.changed(["sequence=[[0,2],[9,4]]"]).frames_at(9) == 4
        for bad in (
            "sequence=[[1,2]]",
            "sequence=[]",
            "sequence=[[0,1]]",
            "clip_share=2",
            "video.context_blocks=99",
        ):
            with pytest.raises((TrainingError, ModelError)):
                config.changed([bad])
        (tmp_path / "held.txt").write_text("nobody\n")
        with pytest.raises(TrainingError, match="no clip"):
            make("other", holdout=str(tmp_path / "held.txt"))
        with pytest.raises(TrainingError, match="mse"):
            make("third", metric="ms-ssim")


class TestScaleSpaceFlow:
    @pytest.fixture
    def flow(self, clips: Path, tmp_path: Path) -> Callable[..., Trainer]:
        def trainer(run: str = "run", branch_from: Path | None = None, **changes: Any) -> Trainer:
            config = TrainConfig.for_architecture("ssf2020")
            options: dict[str, Any] = {
                "clips": str(clips), "sizes": (6, 8), "lmbda": 0.01, "batch": 2, "crop": 128, "large_crop": 128,
                "learning_rate": 1e-3, "warmup": 1, "ema": 0.9,
            }  # fmt: skip
            return Trainer(replace(config, **(options | changes)), tmp_path / run, branch_from)

        return trainer

    def test_everything_is_trained(self, flow: Callable[..., Trainer]) -> None:
        trainer = flow()
        before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
        for _ in range(2):
            figures = trainer.train_step(trainer.crops(trainer.step))
            assert all(np.isfinite(v) for v in figures.values())
        moved = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
        assert moved >= {k for k, p in trainer.model.named_parameters() if p.requires_grad}

    def test_loss_is_that_of_the_model(self, flow: Callable[..., Trainer]) -> None:
        trainer = flow(amp=False)
        x = trainer.crops(0)
        figures = trainer._differentiate(x)
        ours = {k: p.grad.clone() for k, p in trainer.model.named_parameters() if p.grad is not None}
        model = model_of({"name": "ssf2020", "sizes": [6, 8], "flow_unit": "pixels"})
        assert isinstance(model, ScaleSpaceFlow)
        model.load_state_dict(trainer.model.state_dict())
        torch.manual_seed(trainer.config.seed * 1_000_003)
        torch.rand(2)  # qualities, which a model of one rate has no use for
        frames = list(x.unflatten(1, (-1, 3)).unbind(1))
        out = model(frames)
        pixels = 128 * 128 * len(x)
        total = torch.zeros(())
        for x_hat, frame, found in zip(out["x_hat"], frames, out["likelihoods"], strict=True):
            bits = sum(-torch.log2(p).sum() for pair in found.values() for p in pair.values())
            total = total + bits / pixels + 0.01 * 255**2 * (x_hat - frame).square().mean()
        loss = total / len(frames)
        assert figures["loss"] == pytest.approx(loss.item(), rel=1e-5)
        loss.backward()
        theirs = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(theirs).item()
        assert figures["grad"] == pytest.approx(norm, rel=1e-3)
        for name, parameter in model.named_parameters():
            if name in ours and parameter.grad is not None:
                expected = parameter.grad * min(1.0, 1.0 / norm)
                torch.testing.assert_close(ours[name], expected, rtol=1e-2, atol=1e-5, msg=name)

    def test_each_frame_for_itself(self, flow: Callable[..., Trainer]) -> None:
        together, apart = flow("a", amp=False), flow("b", amp=False, multi_frame=False)
        a, b = (trainer._differentiate(trainer.crops(0)) for trainer in (together, apart))
        assert a["loss"] == b["loss"]
        assert a["grad"] != pytest.approx(b["grad"], rel=1e-6)
        # With two frames there is no difference: nothing ever flows into the picture.
        pair = {"amp": False, "sequence": ((0, 2),)}
        together, apart = flow("c", **pair), flow("d", **pair, multi_frame=False)
        a, b = (trainer._differentiate(trainer.crops(0)) for trainer in (together, apart))
        assert a == b

    def test_goes_on_exactly(self, flow: Callable[..., Trainer]) -> None:
        options: dict[str, Any] = {"steps": 4, "decay_start": 2, "sequence": ((0, 2), (2, 3))}
        whole = flow("whole", **options)
        whole.run()
        first = flow("parts", **options)
        for _ in range(2):
            first.train_step(first.crops(first.step))
        first.save()
        second = flow("parts", **options)
        assert second.resumed
        second.run()
        for name, value in whole.model.state_dict().items():
            assert torch.equal(value, second.model.state_dict()[name]), name

    def test_weights_and_validation(self, flow: Callable[..., Trainer], tmp_path: Path) -> None:
        (tmp_path / "held.txt").write_text("00001/0002\n")
        trainer = flow(holdout=str(tmp_path / "held.txt"))
        trainer.train_step(trainer.crops(0))
        (row,) = trainer.validate()
        assert row["bpp"] > 0
        trainer.save()
        save_weights(tmp_path / "run" / "checkpoint.pt", tmp_path / "mine.safetensors", "mine-1")
        loaded = load_video(tmp_path / "mine.safetensors")
        assert isinstance(loaded.network, ScaleSpaceFlow)
        assert loaded.network.flow_unit == "pixels"
        for name, value in trainer.average.named_parameters():
            if not name.endswith("quantiles"):
                assert torch.equal(loaded.network.state_dict()[name], value), name
        tuned = flow("tuned", tmp_path / "mine.safetensors")
        assert torch.equal(tuned.model.img_encoder[0].weight, loaded.network.img_encoder[0].weight)
        checkpoint = tmp_path / "theirs.pth"
        torch.save(dict(loaded.network.state_dict()), checkpoint)
        (remark,) = flow("theirs", checkpoint).remarks
        assert "flow_unit=corrected" in remark
        with pytest.raises(TrainingError, match="another architecture"):
            flow("wider", checkpoint, sizes=(8, 8))
        save(ScaleSpaceFlow(N=6, M=8, flow_unit="corrected"), tmp_path / "published.safetensors", "published")
        with pytest.raises(TrainingError, match="flow_unit=corrected"):
            flow("other", tmp_path / "published.safetensors")
        with pytest.raises(TrainingError, match="another architecture"):
            flow("run", flow_unit="corrected")

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"crop": 64}, "multiple of 128"),
            ({"lmbda": 0.0}, "give lmbda"),
            ({"sizes": (6,)}, "N and M"),
            ({"sequence": ((0, 1),)}, "2 to 32 frames"),
            ({"flow_unit": "miles"}, "pixels or relative or corrected"),
            ({"clips": "nowhere"}, "folder of clips"),
        ],
    )
    def test_what_does_not_fit(
        self, flow: Callable[..., Trainer], option: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(TrainingError, match=message):
            flow("bad", **option)
