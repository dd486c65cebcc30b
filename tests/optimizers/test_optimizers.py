"""Which parameters go to which optimiser."""

import pytest
import torch

from latens.errors import TrainingError
from latens.models import MeanScaleHyperprior
from latens.optimizers import net_aux_optimizer, net_optimizer

CONF = {"net": {"type": "Adam", "lr": 1e-4}, "aux": {"type": "SGD", "lr": 1e-3, "momentum": 0.9}}


@pytest.fixture
def net():
    return MeanScaleHyperprior(4, 6)


def parameters(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def test_quantiles_and_the_rest_are_split_without_remainder(net):
    optimizers = net_aux_optimizer(net, CONF)
    assert set(optimizers) == {"net", "aux"}
    assert type(optimizers["net"]) is torch.optim.Adam
    assert type(optimizers["aux"]) is torch.optim.SGD
    assert [id(p) for p in parameters(optimizers["aux"])] == [id(net.entropy_bottleneck.quantiles)]
    named = sorted((name, p) for name, p in net.named_parameters() if not name.endswith(".quantiles"))
    assert [id(p) for p in parameters(optimizers["net"])] == [id(p) for _, p in named]
    assert optimizers["aux"].defaults["momentum"] == 0.9
    assert optimizers["net"].defaults["lr"] == 1e-4


def test_one_optimiser_takes_all_that_require_gradients(net):
    net.g_a.requires_grad_(False)
    optimizers = net_optimizer(net, CONF)
    assert set(optimizers) == {"net"}
    expected = {id(p) for p in net.parameters() if p.requires_grad}
    assert {id(p) for p in parameters(optimizers["net"])} == expected


def test_the_configuration_is_left_alone(net):
    net_aux_optimizer(net, CONF)
    assert CONF["net"]["type"] == "Adam"


def test_a_frozen_parameter_would_be_forgotten(net):
    net.g_a[0].bias.requires_grad_(False)
    with pytest.raises(TrainingError, match=r"1 parameters .* g_a\.0\.bias"):
        net_aux_optimizer(net, CONF)


@pytest.mark.parametrize(
    ("conf", "says"),
    [
        ({}, '"net"'),
        ({"net": CONF["net"]}, '"aux"'),
        ({"net": {"lr": 1}, "aux": CONF["aux"]}, '"type"'),
        ({"net": 3}, '"net"'),
        ({"net": {"type": "Adamm", "lr": 1}, "aux": CONF["aux"]}, "Adamm"),
        ({"net": {"type": "Adam", "lr": -1}, "aux": CONF["aux"]}, "does not accept"),
        ({"net": {"type": "Adam", "speed": 1}, "aux": CONF["aux"]}, "does not accept"),
    ],
)
def test_bad_configurations(net, conf, says):
    with pytest.raises(TrainingError, match=says):
        net_aux_optimizer(net, conf)


def test_a_model_without_bottleneck_has_nothing_for_aux():
    with pytest.raises(TrainingError, match="no parameters for the optimiser 'aux'"):
        net_aux_optimizer(torch.nn.Linear(2, 2), CONF)
