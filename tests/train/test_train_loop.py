"""The training loop: exact to resume, bounded in time, safe to kill, and clear about what is wrong."""

import copy
import io
import json
import math
import pickle
import resource
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from latens.errors import LatensError, ModelError, TrainingError
from latens.losses import EYE, Mixture, ssimulacra2_distance
from latens.runtime.released import ReleasedPictures
from latens.train import TrainConfig, Trainer, load_average
from latens.train.objectives import rate_and_distortion

Make = Callable[..., Trainer]


def steps(trainer: Trainer, count: int) -> list[dict[str, float]]:
    return [trainer.train_step(trainer.crops(trainer.step)) for _ in range(count)]


def state(trainer: Trainer) -> dict[str, Any]:
    return copy.deepcopy(
        {
            "model": trainer.model.state_dict(),
            "average": trainer.average.state_dict(),
            "optimiser": trainer.optimiser.state_dict()["state"],
            "step": trainer.step,
        }
    )


def assert_equal(a: Any, b: Any) -> None:
    """Bit for bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


# ---- steps


def test_rate_and_distortion_against_numpy() -> None:
    rng = np.random.default_rng(0)
    x, x_hat = rng.random((2, 2, 3, 64, 64)).astype(np.float32)
    y, z = rng.random((2, 5, 4, 4)).astype(np.float32), rng.random((2, 3, 1, 1)).astype(np.float32)
    out = {
        "x_hat": torch.from_numpy(x_hat),
        "likelihoods": {"y": torch.from_numpy(y), "z": torch.from_numpy(z)},
    }
    rate, mse = rate_and_distortion(out, torch.from_numpy(x))
    for i in range(2):
        bits = -np.log2(y[i].astype(float)).sum() - np.log2(z[i].astype(float)).sum()
        assert rate[i] == pytest.approx(bits / 64**2, rel=1e-5)
        assert mse[i] == pytest.approx(((x[i] - x_hat[i]).astype(float) ** 2).mean() * 255**2, rel=1e-5)


def test_steps_move_the_weights_and_the_average_follows(make: Make) -> None:
    trainer = make()
    assert trainer.skipped == ["damaged.png"]
    before = state(trainer)
    figures = steps(trainer, 3)
    after = state(trainer)
    assert all(math.isfinite(value) for row in figures for value in row.values())
    assert all(row["bpp"] > 0 and row["db"] > 3 for row in figures)
    moved = [k for k, v in after["model"].items() if not torch.equal(v, before["model"][k])]
    assert {"g_a.1.weight", "h_scale.0.weight", "prior.mean", "log_gain", "out_scale"} <= set(moved)
    for key in moved:
        distance = (after["average"][key] - after["model"][key]).norm()
        assert 0 < distance < (before["model"][key] - after["model"][key]).norm()


def test_the_loss_falls(make: Make) -> None:
    trainer = make(learning_rate=5e-3)
    with torch.no_grad():
        trainer.model.g_s_out[0].bias.add_(0.1)  # too bright: something to learn at once
    x = trainer.sampler(0, 64)
    quality = torch.tensor([0.2, 0.8])

    def loss() -> float:
        with torch.no_grad():
            rate, mse = rate_and_distortion(trainer.model(x, quality, noise=False), x)
        lmbda = trainer.model.lmbda(quality)
        return float(((rate + lmbda * mse) / lmbda.sqrt()).mean())

    before = loss()
    for _ in range(12):
        trainer.train_step(x)
    assert loss() < 0.8 * before


def test_learning_rate_warms_up_stays_and_falls() -> None:
    config = TrainConfig(learning_rate=1.0, warmup=4, decay_start=10, steps=20, hard_fraction=0.5)
    rates = [config.learning_rate_at(step) for step in range(22)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:11] == [1.0] * 7
    np.testing.assert_allclose(rates[11:21], np.arange(9, -1, -1) / 10)
    assert rates[21] == 0
    assert [config.is_hard(step) for step in (0, 14, 15, 19)] == [False, False, True, True]
    trunk = TrainConfig()
    assert trunk.learning_rate_at(10**6) == trunk.learning_rate
    assert not trunk.is_hard(10**6)


def test_the_rate_falls_like_a_cosine_if_asked() -> None:
    config = TrainConfig(learning_rate=2.0, warmup=0, decay_start=10, steps=30, schedule="cosine")
    rates = [config.learning_rate_at(step) for step in range(31)]
    assert rates[:10] == [2.0] * 10
    np.testing.assert_allclose(rates[10:], 1 + np.cos(np.pi * np.arange(21) / 20), atol=1e-12)


def test_the_last_crops_are_larger_and_fewer(make: Make) -> None:
    config = TrainConfig(batch=8, crop=256, large_crop=384, large_fraction=0.2, decay_start=100, steps=200)
    assert [config.crops_at(step) for step in (0, 179, 180, 199)] == [(8, 256), (8, 256), (4, 384), (4, 384)]
    assert replace(config, batch=1, large_crop=512).crops_at(190) == (1, 512)
    assert replace(config, batch=12, parts=3, large_crop=512).crops_at(190) == (3, 512)
    assert replace(config, steps=0, decay_start=0).crops_at(10**6) == (8, 256)
    trainer = make(batch=5, large_crop=128, large_fraction=0.5, steps=2)
    assert [tuple(trainer.crops(step).shape) for step in (0, 1)] == [(5, 3, 64, 64), (1, 3, 128, 128)]
    steps(trainer, 2)


def test_the_last_part_of_a_decay_freezes_the_analysis(make: Make) -> None:
    trainer = make(steps=4, hard_fraction=0.5)
    steps(trainer, 2)
    before = state(trainer)
    steps(trainer, 2)
    after = state(trainer)
    moved = {
        key.split(".")[0]
        for key, value in after["model"].items()
        if not torch.equal(value, before["model"][key])
    }
    assert moved >= {"g_s", "g_s_out", "h_scale", "mean_0", "mean_1", "prior", "log_gain"}
    assert not moved & {"g_a", "h_a"}


# ---- resuming


@pytest.mark.parametrize(
    "changes", [{}, {"steps": 7, "decay_start": 1, "hard_fraction": 0.6}], ids=["trunk", "decay"]
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(make: Make, changes: dict[str, Any]) -> None:
    whole = make("whole", **changes)
    figures = steps(whole, 6)
    half = make("half", **changes)
    assert steps(half, 3) == figures[:3]
    half.save()
    steps(half, 2)  # lost, as by a kill
    torch.manual_seed(99)
    resumed = make("half", **changes)
    assert resumed.step == 3
    assert steps(resumed, 3) == figures[3:]
    assert_equal(state(resumed), state(whole))


def test_what_a_kill_leaves_behind_does_no_harm(make: Make) -> None:
    trainer = make()
    steps(trainer, 2)
    trainer.save()
    want = state(trainer)
    (trainer.folder / "checkpoint.tmp").write_bytes(b"PK half a checkpoint")
    (trainer.folder / "log.jsonl").write_text('{"step": 1}\n{"step": 5}\n{"step": ')
    again = make()
    assert_equal(state(again), want)
    again._record({"step": 50})
    lines = (again.folder / "log.jsonl").read_text().splitlines()
    assert lines == ['{"step": 1}', '{"step": 50}']
    again.save()
    assert not (again.folder / "checkpoint.tmp").exists()


def test_the_log_of_a_killed_run_is_that_of_the_uninterrupted_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a step missing from the means, nor logged twice."""
    monkeypatch.setattr(Trainer, "LOG_EVERY", 3)

    def lines(trainer: Trainer) -> list[dict[str, float]]:
        rows = [json.loads(line) for line in (trainer.folder / "log.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    whole = make("whole", steps=8)
    whole.run()
    killed = make("killed", steps=8, checkpoint_seconds=1e-9)
    update = Trainer._update

    def dies(self: Trainer) -> None:
        if self.step == 6:  # the checkpoint is of this step, and so is the last line
            raise KeyboardInterrupt
        update(self)
        if self.step == 5:
            self.config = replace(self.config, checkpoint_seconds=1e9)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", dies)
        with pytest.raises(KeyboardInterrupt):
            killed.run()
    assert [row["step"] for row in lines(killed)] == [3, 6]
    resumed = make("killed", steps=8)
    assert resumed.step == 4
    assert [row["step"] for row in lines(resumed)] == [3]
    resumed.run()
    assert lines(resumed) == lines(whole)
    assert [row["step"] for row in lines(whole)] == [3, 6]


def test_run_ends_with_the_budget_and_saves(make: Make) -> None:
    trainer = make()
    trainer.run(0.0)
    assert trainer.step == 1
    assert make().step == 1


def test_run_stops_when_asked_and_logs_on_the_way(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "LOG_EVERY", 2)
    seen = []

    def report(record: dict[str, Any]) -> None:
        seen.append(record)
        if len(seen) == 2:
            trainer.stop()

    trainer = make(report=report)
    trainer.run()
    assert trainer.step == 4
    assert make().step == 4
    lines = [json.loads(line) for line in (trainer.folder / "log.jsonl").read_text().splitlines()]
    assert lines == seen
    assert [line["step"] for line in lines] == [2, 4]
    assert {"loss", "bpp", "db", "grad", "lr", "seconds"} <= lines[0].keys()


def test_run_ends_at_its_last_step_and_does_nothing_afterwards(make: Make) -> None:
    trainer = make(steps=2)
    trainer.run()
    trainer.run()
    assert trainer.step == 2


def test_validation_comes_in_time_and_uses_what_was_held_out(make: Make, tmp_path: Path) -> None:
    (tmp_path / "held").write_text("a.png\n\nc.png\n")
    trainer = make(holdout=str(tmp_path / "held"), validate_seconds=1e-6, steps=1)
    assert trainer.pool.names == ["b.png"]
    assert trainer.validation.names == ["a.png", "c.png"]
    trainer.run()
    (line,) = [json.loads(line) for line in (trainer.folder / "log.jsonl").read_text().splitlines()]
    rows = line["validation"]
    assert [row["quality"] for row in rows] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert rows[0]["bpp"] < rows[-1]["bpp"]
    assert all(math.isfinite(row["db"]) for row in rows)


# ---- branches


def test_fine_tuning_starts_from_a_weights_file(
    make: Make, tiny_weights: Path, tiny_model: ReleasedPictures
) -> None:
    """Both the weights and their average are those of the file's integers, and the run begins at step 0."""
    run = make("tuned", branch_from=tiny_weights)
    assert run.step == 0
    for model in (run.model, run.average):
        for name, value in tiny_model.base.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    other = replace(tiny.CONFIG, hyper=tiny.CONFIG.hyper + 8)
    with pytest.raises(TrainingError, match="another architecture"):
        make("other", branch_from=tiny_weights, model=other)


def test_a_branch_goes_on_from_the_trunk_and_then_stands_alone(make: Make) -> None:
    trunk = make("trunk")
    steps(trunk, 2)
    trunk.save()
    checkpoint = trunk.folder / "checkpoint.pt"
    branch = make("branch", branch_from=checkpoint)
    assert_equal(state(branch), state(trunk))
    branch.start_decay(5)
    saved = TrainConfig.load(branch.folder / "config.json")
    assert (saved.decay_start, saved.steps) == (2, 7)
    steps(trunk, 1)
    trunk.save()
    # Killed before its first step: it must not start from where the trunk is now.
    assert make("branch", branch_from=checkpoint).step == 2


# ---- what goes wrong


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(make: Make) -> None:
    trainer = make()
    steps(trainer, 1)
    trainer.save()
    kept = (trainer.folder / "checkpoint.pt").read_bytes()
    with torch.no_grad():
        trainer.model.out_scale.fill_(math.nan)
    with pytest.raises(
        TrainingError, match=r"the loss is nan at step 1; the last good checkpoint is kept in .*run"
    ):
        trainer.run()
    assert (trainer.folder / "checkpoint.pt").read_bytes() == kept
    assert make().step == 1


def test_checkpoints_do_not_wait_for_photographs_to_validate_with(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(steps=3, checkpoint_seconds=1e-9, validate_seconds=1e-9)
    assert not len(trainer.validation)
    saved: list[int] = []
    monkeypatch.setattr(Trainer, "_write", lambda self, optimiser: saved.append(self.step))
    trainer.run()
    assert saved == [1, 2, 3]


@pytest.mark.parametrize("changes", [{"checkpoint_seconds": 1e-9}, {"steps": 1}])
def test_weights_whose_loss_is_not_finite_are_never_saved(make: Make, changes: dict[str, Any]) -> None:
    """A step too long gives weights that are finite, and of no use."""
    trainer = make(learning_rate=1e30, warmup=0, **changes)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step 1"):
        trainer.run()
    again = make()
    assert again.step == 0
    assert math.isfinite(steps(again, 1)[0]["loss"])


def test_a_gradient_that_is_not_finite_changes_nothing(make: Make) -> None:
    trainer = make()
    before = state(trainer)
    trainer.model.out_scale.register_hook(lambda grad: grad * math.inf)
    with pytest.raises(TrainingError, match=r"the gradient is (nan|inf) at step 0"):
        trainer.run()
    assert_equal(state(trainer), before)


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Files can only grow to so many bytes, then writing fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 100, 500_000])
def test_a_full_disk_keeps_the_checkpoint_before(make: Make, size: int) -> None:
    trainer = make()
    steps(trainer, 1)
    with disk_of(size), pytest.raises(TrainingError, match="run: cannot save the checkpoint at step 1"):
        trainer.save()
    assert sorted(path.name for path in trainer.folder.iterdir()) == [
        "checkpoint.pt",
        "config.json",
        "log.jsonl",
    ]
    assert make().step == 0
    with disk_of(0), pytest.raises(LatensError, match="run"):
        trainer._record({"step": 1})


def test_a_full_disk_shows_before_training(make: Make) -> None:
    with disk_of(1000), pytest.raises(TrainingError, match="cannot save the checkpoint at step 0"):
        make()


def test_a_run_folder_that_is_a_file(make: Make, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(TrainingError, match="run: cannot be written"):
        make()


def test_photographs_that_are_missing(make: Make, tmp_path: Path, photos: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="empty: no image in it"):
        make(data=str(tmp_path / "empty"))
    with pytest.raises(TrainingError, match="nowhere: expected a folder"):
        make(data=str(tmp_path / "nowhere"))
    with pytest.raises(TrainingError, match="list: cannot be read"):
        make(holdout=str(tmp_path / "list"))
    (tmp_path / "list").write_text("other.png\n")
    with pytest.raises(TrainingError, match="list: names no photograph"):
        make(holdout=str(tmp_path / "list"))
    (tmp_path / "list").write_text("a.png\nb.png\nc.png\n")
    with pytest.raises(TrainingError, match="no image is left"):
        make(holdout=str(tmp_path / "list"))
    assert not (tmp_path / "run").exists()


def test_images_smaller_than_a_crop_can_be_trained_on(make: Make, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    for name, size in (("a", (1, 1)), ("b", (3, 200)), ("c", (63, 64))):
        Image.fromarray(tiny.picture(*size)).save(tmp_path / "small" / f"{name}.png")
    figures = steps(make(data=str(tmp_path / "small"), crop=128), 2)
    assert all(math.isfinite(row["loss"]) for row in figures)


class Malicious:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("touched-by-a-pickle"),))


def test_checkpoints_that_are_none(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = make("good")
    sound = torch.load(good.folder / "checkpoint.pt", weights_only=True)
    other = make("other", model=replace(tiny.CONFIG, N=24)).folder / "checkpoint.pt"
    bad: dict[str, Any] = {
        "list": [1, 2], "tensor": torch.zeros(3), "empty": {},
        "no step": {k: v for k, v in sound.items() if k != "step"},
        "no weights": {**sound, "model": {}}, "strange": {**sound, "optimiser": 5, "average": "x"},
        "claims": {**sound, "architecture": {**tiny.CONFIG.to_dict(), "N": 10**9}},
        "architecture": {**sound, "architecture": 7}, "step": {**sound, "step": "many"},
    }  # fmt: skip
    paths = [other, tmp_path / "missing.pt", tmp_path]
    for name, content in bad.items():
        torch.save(content, tmp_path / f"{name}.pt")
        paths.append(tmp_path / f"{name}.pt")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "void.pt").write_bytes(b"")
    (tmp_path / "cut.pt").write_bytes((good.folder / "checkpoint.pt").read_bytes()[:-5000])
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Malicious()))
    torch.save({"model": Malicious()}, tmp_path / "code.pt")
    paths += [tmp_path / f"{name}.pt" for name in ("text", "void", "cut", "pickle", "code")]
    for number, path in enumerate(paths):
        with pytest.raises(TrainingError, match="checkpoint") as caught:
            make(f"branch{number}", branch_from=path)
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / f"branch{number}" / "checkpoint.pt").exists()
    assert not (tmp_path / "touched-by-a-pickle").exists()


def test_checkpoints_that_are_damaged_in_small_ways(make: Make, tmp_path: Path) -> None:
    run = make()
    steps(run, 2)
    run.save()
    path = run.folder / "checkpoint.pt"
    sound = path.read_bytes()

    def refused(damage: Callable[[dict[str, Any]], Any], message: str) -> None:
        content = torch.load(io.BytesIO(sound), weights_only=True)
        damage(content)
        torch.save(content, path)
        with pytest.raises(TrainingError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)

    def fill(values: dict[str, Any], name: str) -> None:
        values[name] = torch.full_like(values[name], math.nan)

    refused(lambda c: c.update(step=-5), "damaged")
    refused(lambda c: c.update(step=10**30), "damaged")
    refused(lambda c: c.update(interval=3), "damaged")
    refused(lambda c: c["optimiser"]["state"][0].update(step=torch.ones(3)), "damaged")
    refused(lambda c: c["optimiser"]["param_groups"][0]["params"].pop(), "other parameters")
    refused(lambda c: fill(c["model"], "out_scale"), "holds values that are not finite")
    refused(lambda c: fill(c["average"], "out_scale"), "holds values that are not finite")
    refused(lambda c: fill(c["optimiser"]["state"][0], "exp_avg"), "holds values that are not finite")
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        largest = max(archive.infolist(), key=lambda item: item.file_size)
    altered = bytearray(sound)
    altered[largest.header_offset + largest.file_size // 2] ^= 1
    path.write_bytes(altered)
    with pytest.raises(TrainingError, match="damaged"):
        make()
    path.write_bytes(sound)
    assert make().step == 2


def test_an_optimiser_that_knows_some_parameters_only(make: Make) -> None:
    run = make()
    steps(run, 1)
    run.save()
    path = run.folder / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    of_all = content["optimiser"]["state"]
    for index in range(3):
        del of_all[index]
    torch.save(content, path)
    resumed = make()
    count = len(of_all) + 3
    assert resumed.remarks == [
        f"the checkpoint has no state of the optimiser for 3 of {count} parameters; for these it starts anew"
    ]
    steps(resumed, 1)


def test_average_weights_can_be_loaded(make: Make, tmp_path: Path) -> None:
    trainer = make()
    steps(trainer, 2)
    trainer.save()
    assert_equal(
        dict(load_average(trainer.folder / "checkpoint.pt").state_dict()), dict(trainer.average.state_dict())
    )
    torch.save({"architecture": tiny.CONFIG.to_dict(), "average": {}}, tmp_path / "x.pt")
    for name in ("x.pt", "none.pt"):
        with pytest.raises(TrainingError, match=name):
            load_average(tmp_path / name)


# ---- configurations


def test_configuration_round_trip(tmp_path: Path) -> None:
    config = TrainConfig(data="a b/ü", crop=128, betas=(0.8, 0.9), model=tiny.CONFIG)
    assert TrainConfig.from_json(config.to_json()) == config
    assert TrainConfig.from_json("{}") == TrainConfig()
    changed = config.changed(
        ["batch=16", "schedule=cosine", "betas=[0.5,0.6]", "model.N=24", "amp=false", "lmbda=1e-2"]
    )
    want = replace(config, batch=16, schedule="cosine", betas=(0.5, 0.6), amp=False, lmbda=0.01)
    assert changed == replace(want, model=replace(tiny.CONFIG, N=24))
    assert config.differences(changed)[0] == "lmbda: 0.0 -> 0.01"
    assert len(config.differences(changed)) == 6
    (tmp_path / "c.json").write_text('{"batch": 3, "model": {"N": 32}}')
    loaded = TrainConfig.load(tmp_path / "c.json")
    assert (loaded.batch, loaded.crop, loaded.model.N, loaded.model.M) == (3, 256, 32, TrainConfig().model.M)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "5", "null", '"x"', '{"unknown": 1}', '{"model": {"unknown": 1}}', '{"model": 3}',
        '{"model": {"N": -1}}', '{"batch": 0}', '{"batch": "8"}', '{"batch": 1.5}', '{"batch": true}', '{"crop": 100}',
        '{"crop": 0}', '{"learning_rate": 0}', '{"learning_rate": NaN}', '{"learning_rate": "1"}',
        '{"betas": [0.9]}', '{"betas": [0.9, 1]}', '{"betas": 0.9}', '{"betas": ["a", "b"]}', '{"clip": -1}',
        '{"warmup": -1}', '{"steps": -5}', '{"ema": 2}', '{"hard_fraction": -0.1}', '{"seed": -1}',
        '{"quality": 9}', '{"sizes": [0]}', '{"sizes": [1, 2, 3, 4, 5]}', '{"sizes": 3}', '{"metric": "psnr"}',
        '{"optimiser": "sgd"}', '{"schedule": "step"}', '{"large_crop": 100}', '{"parts": 9}', '{"amp": 1}',
        '{"lmbda": -1}', '{"min_slope": NaN}', '{"architecture": 5}', '{"holdout": "a", "validation": "b"}',
        '{"refresh": 0}', '{"device": null}', '{"validate_images": 0}', '{"tensorboard": "yes"}',
        '{"seed": 4294967296}', '{"threads": 0}', '{"checkpoint_seconds": 0}', '{"data": 5}', "[" * 100000,
    ],
    ids=lambda t: t[:30],
)  # fmt: skip
def test_bad_configurations_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises((TrainingError, ModelError)):
        TrainConfig.from_json(text)
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(TrainingError, match=r"c\.json"):
        TrainConfig.load(path)


def test_configurations_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("missing", "", "binary"):
        with pytest.raises(TrainingError, match="cannot be read"):
            TrainConfig.load(tmp_path / name)


# ---- for the eye


def test_what_is_trained_for_is_a_mixture(make: Make) -> None:
    """The loss of a step, from the outputs of the network."""
    for changes, weights in (
        ({"metric": "eye"}, EYE),
        ({"metric": "ms-ssim"}, {"ms-ssim": 1.0}),
        ({"metric": "eye", "objective": {"mse": 0.5, "chroma": 2.0}}, {"mse": 0.5, "chroma": 2.0}),
    ):
        run = make("of-" + "-".join(weights), crop=256, amp=False, quality_power=0.5, **changes)
        x, quality = run.crops(0), torch.tensor([0.25, 0.81])
        torch.manual_seed(1)
        loss = run.objective(x, quality, 0, False)[0]
        torch.manual_seed(1)
        out = run.model(x, quality.sqrt())
        rate, _ = rate_and_distortion(out, x)
        lmbda = run.model.lmbda(quality.sqrt())
        want = (rate + lmbda * Mixture(weights)(out["x_hat"], x, lmbda)) / lmbda.sqrt()
        assert loss.item() == pytest.approx(want.mean().item(), rel=1e-5)


def test_training_for_the_eye_raises_the_score(make: Make) -> None:
    run = make(metric="eye", crop=256, learning_rate=3e-4, warmup=1, amp=False)
    x, quality = run.crops(0), torch.tensor([0.5, 0.7])

    def distance() -> float:
        with torch.no_grad():
            return ssimulacra2_distance(run.model(x, quality)["x_hat"], x).mean().item()

    before = distance()
    for _ in range(10):
        run.train_step(x)
    assert distance() < before - 1


@pytest.mark.parametrize("kind", ["weights", "checkpoint"])
def test_a_branch_may_have_a_wider_range(make: Make, tiny_weights: Path, kind: str) -> None:
    origin = tiny_weights
    if kind == "checkpoint":
        trunk = make("trunk")
        trunk.train_step(trunk.crops(0))
        trunk.save()
        origin = trunk.folder / "checkpoint.pt"
    wider = replace(tiny.CONFIG, lambda_min=0.0001, lambda_max=0.9)
    branch = make("wider", branch_from=origin, model=wider)
    assert branch.model.config == wider
    assert (branch.step, len(branch.optimiser.state)) == (0, 0)
    assert [remark for remark in branch.remarks if "becomes 0.0001 to 0.9" in remark]
    branch.train_step(branch.crops(0))
    branch.save()
    assert make("wider", model=wider).step == 1
    with pytest.raises(TrainingError, match="another architecture"):
        make("other", branch_from=origin, model=replace(wider, M=48))


def test_bad_mixtures_are_refused() -> None:
    for text in ('{"mse": -1}', '{"beauty": 1}', '{"mse": 0}', "[1]", '{"mse": "1"}', '{"mse": NaN}'):
        with pytest.raises(TrainingError, match="objective: expected weights of mse, chroma"):
            TrainConfig.from_json(f'{{"objective": {text}}}')
    assert TrainConfig().changed(['objective={"ssimulacra2":1}']).objective == {"ssimulacra2": 1}
