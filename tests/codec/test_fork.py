"""A child of fork() that codes after its parent has: without care, it waits for threads that only the parent has."""

import multiprocessing
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods() or sys.platform == "darwin",
    reason="forks are for systems where libraries survive them",
)

COMMON = """
import gc, multiprocessing, threading
import numpy as np
import torch
from latens.runtime import set_threads

torch.set_num_threads(3)
set_threads(3)
fork = multiprocessing.get_context("fork")

def in_child(work):
    ours, theirs = fork.Pipe()
    def child():
        theirs.send(work())
    process = fork.Process(target=child)
    process.start()
    result = ours.recv()
    process.join()
    assert process.exitcode == 0
    return result

def check(work):
    before = work()
    assert in_child(work) == before
    assert in_child(lambda: (work(), in_child(work))) == (before, before)
    assert work() == before
    found = []
    thread = threading.Thread(target=lambda: found.extend((work(), in_child(work))))
    thread.start()
    thread.join()
    assert found == [before, before]
"""

CASES = {
    "files": """
import latens
image = np.tile(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8), (5, 5, 1))
data = latens.encode(image, 50)
check(lambda: latens.encode(image, 50))
check(lambda: np.asarray(latens.decode(data)).tobytes())
""",
    "models": """
from latens.models import Cheng2020AnchorCheckerboard, JointAutoregressiveHierarchicalPriors, MeanScaleHyperprior
torch.manual_seed(0)
x = torch.rand(1, 3, 256, 256)
for kind, sizes in ((MeanScaleHyperprior, (48, 64)), (JointAutoregressiveHierarchicalPriors, (16, 24)),
                    (Cheng2020AnchorCheckerboard, (32,))):
    model = kind(*sizes).eval()
    check(lambda: model.compress(x)["strings"])
    check(torch.no_grad()(lambda: model(x)["x_hat"].numpy().tobytes()))
model = MeanScaleHyperprior(16, 24).eval()
check(lambda: model.compress(x, exact=True)["strings"])
""",
    "layers": """
from latens.runtime import IntegerChain, IntegerLayer
from latens.runtime.layers import Pointwise
rng = np.random.default_rng(0)
layers = [IntegerLayer(rng.integers(-500, 500, (64, 64, 1, 1)), rng.integers(-500, 500, 64), shift=12, activation=2)
          for _ in range(2)]
pointwise, chain = Pointwise(layers), IntegerChain(layers)
a = rng.integers(-1000, 1000, (5000, 64)).astype(np.int32)
added = [layer.bias[None] for layer in layers]
check(lambda: pointwise.sums(a, added).tobytes())
check(lambda: chain.sums(a.reshape(50, 100, 64)).tobytes())
""",
}


@pytest.mark.parametrize("case", CASES)
def test_children_code_what_their_parents_do(case):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    subprocess.run([sys.executable, "-c", COMMON + CASES[case]], check=True, env=environment)
