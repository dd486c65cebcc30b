"""Names of everything: what is in the registries, and what may be added."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from latens import registry
from latens.errors import RegistryError
from latens.models import CompressionModel

KINDS = {
    "CRITERIONS": registry.register_criterion,
    "DATASETS": registry.register_dataset,
    "MODELS": registry.register_model,
    "MODULES": registry.register_module,
    "OPTIMIZERS": registry.register_optimizer,
    "SCHEDULERS": registry.register_scheduler,
    "TRANSFORMS": registry.register_transform,
}


@pytest.fixture(autouse=True)
def _restore(monkeypatch):
    for kind in KINDS:
        monkeypatch.setitem(registry._registries, kind, dict(getattr(registry, kind)))


def test_what_comes_with_the_library_is_there():
    from latens.losses import RateDistortionLoss
    from latens.models import MeanScaleHyperprior
    from latens.optimizers import net_aux_optimizer

    assert registry.MODELS["mbt2018-mean"] is MeanScaleHyperprior
    assert registry.CRITERIONS["RateDistortionLoss"] is RateDistortionLoss
    assert registry.OPTIMIZERS["net_aux"] is net_aux_optimizer
    assert registry.OPTIMIZERS["Adam"] is torch.optim.Adam
    assert registry.SCHEDULERS["ReduceLROnPlateau"] is torch.optim.lr_scheduler.ReduceLROnPlateau
    assert {"RGB2YCbCr", "YUV420To444"} <= set(registry.TRANSFORMS)
    assert {"ImageFolder", "VideoFolder", "Vimeo90kDataset"} <= set(registry.DATASETS)
    assert all(issubclass(model, CompressionModel) for model in registry.MODELS.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_registered_class_is_found_and_returned_as_it_was(kind):
    class Mine(nn.Module):
        pass

    assert KINDS[kind]("mine")(Mine) is Mine
    assert getattr(registry, kind)["mine"] is Mine


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_cannot_be_taken_twice(kind):
    first, second = type("First", (), {}), type("Second", (), {})
    KINDS[kind]("mine")(first)
    KINDS[kind]("mine")(first)
    with pytest.raises(RegistryError, match="First"):
        KINDS[kind]("mine")(second)
    assert getattr(registry, kind)["mine"] is first


def test_a_name_of_the_library_cannot_be_taken():
    with pytest.raises(RegistryError, match="MeanScaleHyperprior"):
        registry.register_model("mbt2018-mean")(type("Mine", (), {}))


def test_the_same_definition_run_again_replaces_the_first():
    def define():
        @registry.register_module("again")
        class Again:
            pass

        return Again

    define()
    latest = define()
    assert registry.MODULES["again"] is latest


def test_nothing_is_loaded_before_a_dictionary_is_asked_for():
    code = "import sys, latens.registry; assert 'torch' not in sys.modules; latens.registry.OPTIMIZERS['net']"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_registry_can_be_the_first_thing_that_is_asked_for():
    code = "import latens.optimizers, latens.registry as r; assert r.OPTIMIZERS['net'] is not None"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_of_the_module_are_attribute_errors():
    with pytest.raises(AttributeError, match="LOSSES"):
        _ = registry.LOSSES
