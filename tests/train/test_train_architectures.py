"""Published architectures in training: what is minimised, what a run leaves behind, and going on exactly."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import published
import tiny
from latens import registry, zoo
from latens.errors import ModelError, TrainingError
from latens.losses import RateDistortionLoss
from latens.models import CompressionModel, FactorizedPrior, MeanScaleHyperprior, ScaleHyperprior
from latens.train import TrainConfig, Trainer, load_average, save_weights
from latens.train.objectives import ZooObjective, make_objective, model_of
from latens.zoo.pretrained import read_checkpoint

Make = Callable[..., Trainer]

# Of fewer channels, some units of ReLU are dead from the start.
SIZES = {"cheng2020": (16,), "elic2022": (16, 160)}
TABLE = {
    "mse": (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800),
    "ms-ssim": (2.40, 4.58, 8.73, 16.64, 31.73, 60.50, 115.37, 220.00),
}


def small(architecture: str, **changes: Any) -> dict[str, Any]:
    """Options of a tiny model."""
    sizes = published.SIZES.get(architecture) or SIZES.get(architecture.split("-")[0], (8, 12))
    return {"architecture": architecture, "sizes": sizes, "quality": 3, "learning_rate": 1e-3} | changes


def steps(trainer: Trainer, count: int) -> list[dict[str, float]]:
    return [trainer.train_step(trainer.crops(trainer.step)) for _ in range(count)]


@pytest.mark.parametrize("architecture", sorted(zoo.image_models))
def test_every_architecture_of_the_zoo_can_be_trained(architecture: str, make: Make) -> None:
    # In the second stage this one goes position by position, which takes its time.
    first = 2 if architecture == "mbt2018-vbr" else 0
    trainer = make(**small(architecture, fixed_rate_steps=first))
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    figures = steps(trainer, 2)
    assert all(math.isfinite(value) for row in figures for value in row.values())
    moved = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    trained = {k for k, p in trainer.model.named_parameters() if p.requires_grad}
    # What is added to all keys alike makes no difference to a softmax over them.
    idle = {k for k in trained if architecture == "mlic++" and k.endswith("keys.1.bias")}
    if not trainer.objective.partly_used:
        assert trained - idle <= moved
    ends = {"patch_embed", "end_conv"} if architecture == "stf" else {"g_a", "g_s"}
    assert {key.split(".")[0] for key in moved} >= ends
    assert not any(key.endswith("quantiles") for key in trained)


def test_the_default_of_an_architecture_is_what_the_field_uses() -> None:
    config = TrainConfig.from_json('{"architecture": "mbt2018-mean", "quality": 5, "batch": 4}')
    assert (config.learning_rate, config.betas, config.schedule) == (1e-4, (0.9, 0.999), "cosine")
    assert config.batch == 4
    objective = make_objective(config, torch.device("cpu"))
    assert isinstance(objective.model, MeanScaleHyperprior)
    assert (objective.model.N, objective.model.M) == (192, 320)
    names = ("wacnn", "tcm", "cca", "mlic++", "hpcm", "hpcm-large", "dcvc-rt")
    assert [TrainConfig.for_architecture(name).batch for name in names] == [16, 8, 8, 32, 32, 32, 8]
    config = replace(TrainConfig.for_architecture("mlic++"), steps=100)
    assert [config.crops_at(step) for step in (59, 60)] == [(32, 256), (8, 512)]


@pytest.mark.parametrize("metric", ["mse", "ms-ssim"])
@pytest.mark.parametrize("quality", [1, 8])
def test_the_loss_is_that_of_the_field(metric: str, quality: int) -> None:
    """Against RateDistortionLoss with the published weight of the distortion, same noise."""
    config = TrainConfig(**small("bmshj2018-hyperprior", metric=metric, quality=quality, amp=False, crop=192))
    objective = make_objective(config, torch.device("cpu"))
    x = torch.from_numpy(tiny.picture(192, 192)).permute(2, 0, 1)[None].repeat(2, 1, 1, 1) / 255.0
    torch.manual_seed(1)
    loss, bpp, _ = objective(x, torch.tensor([0.2, 0.7]), 0, False)
    torch.manual_seed(1)
    out = objective.model(x)
    out["x_hat"] = out["x_hat"].contiguous()
    want = RateDistortionLoss(TABLE[metric][quality - 1], metric)(out, x.contiguous())
    assert loss.item() == pytest.approx(want["loss"].item(), rel=1e-4)
    assert bpp.item() == pytest.approx(want["bpp_loss"].item(), rel=1e-4)
    given = make_objective(replace(config, lmbda=0.5, quality=0), torch.device("cpu"))
    assert isinstance(given, ZooObjective)
    assert given._lmbda == 0.5


def test_low_precision_stays_inside_the_transforms() -> None:
    config = TrainConfig(**small("mbt2018-mean"))
    torch.manual_seed(0)
    low = make_objective(config, torch.device("cpu"))
    high = make_objective(replace(config, amp=False), torch.device("cpu"))
    high.model.load_state_dict(low.model.state_dict())
    kinds = {}

    def watch(name: str) -> None:
        def hook(module: nn.Module, arguments: Any, out: torch.Tensor) -> None:
            kinds[name] = out.dtype

        low.model.get_submodule(name).register_forward_hook(hook)

    for name in ("g_a.0", "h_a.0", "h_s.0", "g_s.0"):
        watch(name)
    x, quality = torch.rand(2, 3, 64, 64), torch.tensor([0.1, 0.9])
    figures = []
    for objective in (low, high):
        torch.manual_seed(1)
        figures.append(objective(x, quality, 0, False))
    assert kinds == {k: torch.float32 if k == "h_s.0" else torch.bfloat16 for k in kinds}
    assert len(kinds) == 4
    torch.testing.assert_close(figures[0], figures[1], rtol=0.02, atol=0)
    assert not torch.equal(figures[0], figures[1])


def test_variable_rate_trains_each_level_with_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = make_objective(TrainConfig(**small("bmshj2018-hyperprior-vbr")), torch.device("cpu"))
    seen: list[int] = []

    def watched(x: torch.Tensor, stage: int = 2, s: int = 1) -> Any:
        assert stage == 2
        seen.append(s)
        # One bit per value, and an error that tells the levels apart.
        return {"x_hat": x + (s + 1) / 255, "likelihoods": {"y": torch.full_like(x, 0.5)}}

    monkeypatch.setattr(objective.model, "forward", watched)
    for step in range(30):
        torch.manual_seed(step)
        quality = (torch.arange(8) + torch.rand(8)) / 8
        loss, bpp, _ = objective(torch.zeros(8, 3, 8, 8), quality, step, False)
        weights = [TABLE["mse"][level] for level in seen[-4:]]
        each = [(3 + w * (s + 1) ** 2) / w**0.5 for w, s in zip(weights, seen[-4:], strict=True)]
        assert loss.item() == pytest.approx(np.mean(each), rel=1e-4)
        assert bpp == 3
    assert len(seen) == 4 * 30
    # One from each quarter of the range in each batch; all come up.
    assert [level // 2 for level in seen[:4]] == [0, 1, 2, 3]
    assert set(seen) == set(range(8))


def test_quantiles_need_no_ritual(make: Make) -> None:
    """They follow the density in training, and are exact in what comes out: no auxiliary loss is left."""
    trainer = make(**small("bmshj2018-factorized"))
    steps(trainer, 1)
    assert trainer.model.aux_loss() < 2.0
    with torch.no_grad():
        trainer.model.entropy_bottleneck.biases[0].add_(3.0)  # medians move away
    away = trainer.model.aux_loss()
    trainer.step = 25
    steps(trainer, 1)
    assert trainer.model.aux_loss() < 0.1 * away


@pytest.mark.parametrize(
    ("architecture", "optimiser"),
    [
        ("bmshj2018-factorized", "adamw"),
        ("mbt2018-mean", "soap"),
        ("mbt2018-mean-vbr", "adamw"),
        ("latens-base", "soap"),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    architecture: str, optimiser: str, make: Make
) -> None:
    options = small(architecture) if architecture != "latens-base" else {}
    options |= {"optimiser": optimiser, "refresh": 3, "steps": 30, "schedule": "cosine", "large_crop": 128}
    options["large_fraction"] = 0.9
    whole = make("whole", **options)
    whole.step = 22  # so that quantiles are solved for and crops get larger on the way
    whole.save()
    half = make("half", **options, branch_from=whole.folder / "checkpoint.pt")
    figures = steps(whole, 6)
    assert steps(half, 2) == figures[:2]
    half.save()
    steps(half, 1)  # lost, as by a kill
    torch.manual_seed(99)
    resumed = make("half", **options)
    assert (resumed.step, resumed.resumed, resumed.remarks) == (24, True, [])
    assert steps(resumed, 4) == figures[2:]
    for mine, theirs in ((resumed.model, whole.model), (resumed.average, whole.average)):
        for key, value in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[key], value), key


def test_a_run_becomes_weights_that_code_images(make: Make, tmp_path: Path) -> None:
    trainer = make(**small("mbt2018-mean"))
    steps(trainer, 2)
    trainer.save()
    save_weights(trainer.folder / "checkpoint.pt", tmp_path / "mean.safetensors", "mean", "notes")
    weights = read_checkpoint(tmp_path / "mean.safetensors")
    model = MeanScaleHyperprior.from_state_dict(weights)
    average = load_average(trainer.folder / "checkpoint.pt")
    # Convolutions are stored in half precision.
    torch.testing.assert_close(model.g_a[0].weight, average.g_a[0].weight, rtol=1e-3, atol=1e-6)
    assert (model.g_a[0].weight - trainer.model.g_a[0].weight).abs().max() > 1e-4
    assert model.aux_loss() < 1.0
    # What was said while training is what coding gives.
    (row,) = trainer_on_itself(trainer).validate()
    sizes, errors = [], []
    for image in (tiny.picture(*size) for size in ((150, 200), (90, 70), (40, 30))):
        padded = np.pad(
            image, [((-n % 64) // 2, -n % 64 - (-n % 64) // 2) for n in image.shape[:2]] + [(0, 0)], "edge"
        )
        x = torch.from_numpy(padded).permute(2, 0, 1)[None] / 255.0
        code = model.eval().compress(x)
        assert model.decompress(code["strings"], code["shape"])["x_hat"].shape == x.shape
        size = sum(len(s) for part in code["strings"] for s in part)
        sizes.append(8 * size / (image.shape[0] * image.shape[1]))
        errors.append(code)
    assert row["bpp"] == pytest.approx(np.mean(sizes), rel=0.02)


def trainer_on_itself(trainer: Trainer) -> Trainer:
    trainer.validation = trainer.pool
    return trainer


def test_validation_figures_are_those_of_an_independent_decoder(make: Make) -> None:
    """The default model: real .ltn files, decoded by the public functions with the weights file."""
    import latens

    trainer = trainer_on_itself(make(validate_images=2))
    rows = trainer.validate()
    trainer.save()
    weights = trainer.folder / "x.safetensors"
    save_weights(trainer.folder / "checkpoint.pt", weights, "x-1")
    bits, psnr = [], []
    for i in range(2):
        image = trainer.pool[i]
        data = latens.encode(image, 100, model=str(weights))
        decoded = np.asarray(latens.decode(data, model=str(weights)), np.float64)
        bits.append(8 * len(data) / (image.size / 3))
        psnr.append(10 * math.log10(255**2 / np.square(decoded - image).mean()))
    assert rows[-1]["quality"] == 1.0
    # Weights are stored in half precision, and names differ in length.
    assert rows[-1]["bpp"] == pytest.approx(np.mean(bits), rel=0.02)
    assert rows[-1]["db"] == pytest.approx(np.mean(psnr), abs=0.1)


def test_variable_rate_is_validated_at_all_levels(make: Make) -> None:
    trainer = trainer_on_itself(make(**small("bmshj2018-hyperprior-vbr", validate_images=1)))
    rows = trainer.validate()
    assert [row["quality"] for row in rows] == [round(s / 7, 4) for s in range(8)]
    assert rows[0]["bpp"] <= rows[-1]["bpp"]


# ---- starting points


def test_training_starts_from_published_weights(make: Make, tmp_path: Path) -> None:
    """As CompressAI's training script leaves them, or safetensors."""
    torch.manual_seed(5)
    model = ScaleHyperprior(8, 12)
    torch.save(
        {"epoch": 3, "state_dict": model.state_dict(), "loss": torch.zeros(())}, tmp_path / "c.pth.tar"
    )
    run = make("tuned", branch_from=tmp_path / "c.pth.tar", **small("bmshj2018-hyperprior"))
    for mine in (run.model, run.average):
        assert torch.equal(mine.state_dict()["g_a.0.weight"], model.g_a[0].weight)
    assert run.step == 0
    with pytest.raises(
        TrainingError, match=r"c\.pth\.tar: weights of another architecture than name=mbt2018"
    ):
        make("other", branch_from=tmp_path / "c.pth.tar", **small("mbt2018"))


def test_a_checkpoint_of_another_architecture(make: Make) -> None:
    factorized = make("a", **small("bmshj2018-factorized")).folder / "checkpoint.pt"
    default = make("b").folder / "checkpoint.pt"
    wide = make("c", **small("bmshj2018-factorized", sizes=(16, 12))).folder / "checkpoint.pt"
    for path, options in (
        (factorized, small("mbt2018-mean")),
        (default, small("bmshj2018-factorized")),
        (factorized, {}),
        (wide, small("bmshj2018-factorized")),
    ):
        with pytest.raises(TrainingError, match="a checkpoint of another architecture") as caught:
            make("x", branch_from=path, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(TrainingError, match="another architecture"):
        make("a", **small("mbt2018-mean"))


def test_another_optimiser_needs_a_new_run(make: Make) -> None:
    trunk = make("trunk")
    steps(trunk, 2)
    trunk.save()
    checkpoint = trunk.folder / "checkpoint.pt"
    with pytest.raises(
        TrainingError,
        match=r"another optimiser than soap, or for other parameters; .* start a new run with --branch-from",
    ):
        make("trunk", optimiser="soap")
    branch = make("branch", branch_from=checkpoint, optimiser="soap")
    assert branch.step == 2
    assert branch.remarks == ["optimiser soap: starts anew, that of the checkpoint differs"]
    steps(branch, 1)


def test_what_differs_from_before_is_said_and_done(make: Make) -> None:
    run = make("run", learning_rate=1e-3)
    steps(run, 1)
    run.save()
    again = make("run", learning_rate=5e-4, betas=(0.8, 0.9), batch=3)
    assert again.remarks == [
        "from here on with batch: 2 -> 3",
        "from here on with learning_rate: 0.001 -> 0.0005",
        "from here on with betas: (0.9, 0.99) -> (0.8, 0.9)",
    ]
    steps(again, 1)
    assert again.optimiser.param_groups[0]["betas"] == (0.8, 0.9)
    assert again.optimiser.param_groups[0]["lr"] == again.config.learning_rate_at(1)
    assert TrainConfig.load(run.folder / "config.json").batch == 3
    assert make("run", learning_rate=5e-4, betas=(0.8, 0.9), batch=3).remarks == []


def test_what_cannot_be_trained(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ModelError, match="unknown architecture 'nothing'; there are latens-base, latens-video, bmshj2018"
    ):
        make(architecture="nothing")
    with pytest.raises(TrainingError, match="expected a quality from 1 to 6, or sizes"):
        make(architecture="cheng2020-anchor", quality=7)
    with pytest.raises(TrainingError, match="expected a quality from 1 to 8, or lmbda"):
        make(architecture="elic2022-official")
    with pytest.raises(TrainingError, match=r"does not take sizes \[1, 2, 3\]"):
        make(architecture="mbt2018-mean", sizes=(1, 2, 3), quality=1)
    for name, sizes in (("hpcm", (4096, 4096)), ("tcm", (4096,))):
        with pytest.raises(TrainingError, match=rf"{name}: sizes \[4096.* would be [\d,]+ parameters"):
            make(architecture=name, sizes=sizes, lmbda=1.0)
    with pytest.raises(TrainingError, match="no lambdas for ms-ssim at variable rate"):
        make(**small("mbt2018-mean-vbr", metric="ms-ssim"))
    with pytest.raises(TrainingError, match="ms-ssim needs crops of 192 pixels or more, got 64"):
        make(**small("mbt2018-mean", metric="ms-ssim"))
    with pytest.raises(TrainingError, match="ms-ssim needs crops of 192 pixels or more, got 128"):
        make(metric="ms-ssim", crop=128)
    with pytest.raises(TrainingError, match="ssimulacra2 needs crops of 256 pixels or more, got 192"):
        make(metric="eye", crop=192)
    monkeypatch.setitem(registry.MODELS, "a-layer", nn.Conv2d)
    with pytest.raises(TrainingError, match="no compression model"):
        make(architecture="a-layer", sizes=(3, 3, 1), lmbda=1.0)


def test_a_model_of_ones_own(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(FactorizedPrior):
        pass

    monkeypatch.setitem(registry.MODELS, "mine", Mine)
    trainer = make(architecture="mine", sizes=(8, 12), lmbda=0.01)
    steps(trainer, 1)
    trainer.save()
    assert isinstance(load_average(trainer.folder / "checkpoint.pt"), Mine)


def test_compiling_covers_the_transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    for options in (small("mbt2018-mean", compile=True), {"compile": True, "model": tiny.CONFIG}):
        compiled.clear()
        model: Any = make_objective(TrainConfig(**options), torch.device("cpu")).model
        assert {id(m) for m in compiled} >= {id(model.g_a), id(model.g_s)}


# ---- what a run says


def test_a_flat_top_ends_the_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def validated(top: float) -> list[dict[str, float]]:
        return [{"quality": 0.8, "bpp": 1.0, "db": 36.0}, {"quality": 1.0, "bpp": 1.5, "db": top}]

    def run(name: str, top: float, step: int, **changes: Any) -> Trainer:
        trainer = trainer_on_itself(make(name, steps=step + 1, **changes))
        trainer.step = step
        monkeypatch.setattr(trainer, "validate", lambda: validated(top))
        trainer.run()
        return trainer

    with pytest.raises(
        TrainingError, match=r"step 2001: .* a bit per pixel buys 2\.00 dB \(36\.00 dB at 1\.000 bpp"
    ):
        run("flat", 37.0, 2000)
    # Nothing was lost, and the figures are in the log.
    assert torch.load(make("flat").folder / "checkpoint.pt", weights_only=True)["step"] == 2001
    assert len((make("flat").folder / "log.jsonl").read_text().splitlines()) == 1
    assert run("steep", 37.6, 2000).step == 2001
    assert run("early", 37.0, 1).step == 2
    assert run("asked", 37.0, 2000, min_slope=0.0).step == 2001
    assert run("single", 37.0, 2000, **small("bmshj2018-factorized")).step == 2001


def test_tensorboard_has_what_the_log_has(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(Trainer, "LOG_EVERY", 1)
    trainer = trainer_on_itself(make(tensorboard=True, steps=2, validate_images=1))
    trainer.run()
    events = EventAccumulator(str(trainer.folder / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (trainer.folder / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(losses)
    rows = lines[-1]["validation"]
    assert events.Scalars("validation/db at quality 1.00")[0].value == pytest.approx(rows[-1]["db"])


def test_tensorboard_that_is_not_installed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"pip install 'latens\[train\]'"):
        make(tensorboard=True)


# ---- files


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": {"name": "nothing", "sizes": [1]}},
        {"architecture": {"name": "mbt2018-mean", "sizes": [10**9, 12]}},
        {"architecture": {"name": "mbt2018-mean", "sizes": "x"}},
        {"architecture": {"name": "mbt2018-mean"}},
        {"architecture": {"name": "bmshj2018-hyperprior", "sizes": [8, 12]}},
        {"average": {}},
        {"average": 5},
    ],
    ids=str,
)
def test_checkpoints_that_cannot_become_weights(change: dict[str, Any], make: Make, tmp_path: Path) -> None:
    trainer = make(**small("mbt2018-mean"))
    state = torch.load(trainer.folder / "checkpoint.pt", weights_only=True)
    torch.save(state | change, tmp_path / "bad.pt")
    with pytest.raises(TrainingError, match=r"bad\.pt: not a checkpoint of a training run") as caught:
        save_weights(tmp_path / "bad.pt", tmp_path / "x.safetensors", "x")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.safetensors").exists()


def test_weights_that_are_not_finite_are_not_written(make: Make, tmp_path: Path) -> None:
    trainer = make(**small("bmshj2018-factorized"))
    with torch.no_grad():
        trainer.average.g_a[0].bias[0] = math.nan
    trainer.save()
    with pytest.raises(ModelError, match=r"g_a\.0\.bias has values that are not finite"):
        save_weights(trainer.folder / "checkpoint.pt", tmp_path / "x.safetensors", "x")
    with pytest.raises(ModelError, match=r"must end in \.safetensors"):
        save_weights(trainer.folder / "checkpoint.pt", tmp_path / "x.pt", "x")


def test_the_model_of_an_architecture() -> None:
    model = model_of({"name": "bmshj2018-factorized", "sizes": [8, 12]})
    assert isinstance(model, FactorizedPrior)
    assert isinstance(model, CompressionModel)
    assert model.g_a[0].out_channels == 8


def test_validation_images_of_a_folder(make: Make, tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    buffer = io.BytesIO()
    Image.fromarray(tiny.picture(64, 64, seed=7)).save(buffer, "PNG")
    (tmp_path / "val" / "v.png").write_bytes(buffer.getvalue())
    trainer = make(validation=str(tmp_path / "val"))
    assert trainer.validation.names == ["v.png"]
    assert len(trainer.pool) == 3
    with pytest.raises(TrainingError, match="nowhere: expected a folder"):
        make("other", validation=str(tmp_path / "nowhere"))
