"""The outside truth: pyautoattack's result stage by stage, and its two networks in JAX."""

import importlib.util
import os
import pathlib
import sys

import jax
import numpy as np
import pytest

ORACLE = pathlib.Path(__file__).parents[1] / "experiments" / "oracle"
sys.path.insert(0, str(ORACLE))

import truth


@pytest.fixture(params=truth.NAMES)
def name(request):
    return request.param


def test_the_files_say_what_a_standard_evaluation_says(name):
    """Stages run on survivors only, so nobody rises again; all seeds ran to their end."""
    known = truth.read(name)
    assert list(known.stages) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert known.eps == pytest.approx({"mnist": 0.3, "cifar10": 0.7 / 255}[name])
    np.testing.assert_array_equal(known.clean, known.logits.argmax(1) == known.labels)
    for robust in known.robust:
        assert (np.diff([known.clean.astype(int), *robust], axis=0) <= 0).all()
    assert known.complete.all()
    assert 0.3 <= known.lowest / len(known.labels) < known.clean.mean()
    assert truth.path_of(name).stat().st_size < 200_000


def test_the_networks_in_jax_give_the_logits_of_pytorch(name):
    """On real images, to 1e-4; needs the weights in the wheel, not PyTorch."""
    pytest.importorskip("h5py")
    if importlib.util.find_spec("pyautoattack") is None:
        pytest.skip("pyautoattack's wheel holds the weights: pip install '.[oracle]'")
    if "ROBUSTJAX_DATA_DIR" not in os.environ:
        pytest.skip("set ROBUSTJAX_DATA_DIR to a folder of prepared TFDS sets")
    import nets

    net = {"mnist": nets.mnist_net, "cifar10": nets.cifar_net}[name]
    logits_fn = net(nets.wheel({"mnist": nets.MNIST, "cifar10": nets.CIFAR10}[name]))
    images = truth.images(name, os.environ["ROBUSTJAX_DATA_DIR"])
    logits = jax.jit(lambda f, x: f(x))(logits_fn, images)
    np.testing.assert_allclose(logits, truth.read(name).logits, atol=1e-4)
    assert len(jax.tree.leaves(logits_fn)) > 10  # weights are arguments
