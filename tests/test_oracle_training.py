"""The step of `robustjax train` against its formulas in plain PyTorch, number by number.

tests/golden/training_steps.npz is what experiments/oracle/training_steps.py found in float64. Ours
is float32: the tolerance is its rounding and no more, for the script refuses a problem in which the
sign of a gradient, by which pixels move, is in doubt. Both sides begin with the same weights, and
the attacks of both with the same noise.
"""

import contextlib
import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from tiny import CLASSES, module

from robustjax import parallel
from robustjax.attacks.starts import Gaussian, Start
from robustjax.config import config
from robustjax.data import Augment, to_float
from robustjax.training import AWP, METHODS, PGDAT, TRADES, Free, Optimizer, Recipe
from robustjax.training.methods.base import Method
from robustjax.training.methods.wrapper import Wrapper
from robustjax.training.schedules import Constant
from robustjax.training.step import IN_AXES, OUT_AXES, create_state, make_step

FOLDER = pathlib.Path(__file__).parent
GOLDEN = FOLDER / "golden" / "training_steps.npz"
sys.path.insert(0, str(FOLDER.parent / "experiments" / "oracle"))

STEPS, SIZE = 3, 6
RECIPE = Recipe(
    batch_size=SIZE,
    lr=0.1,
    schedule=Constant(),
    optimizer=Optimizer(weight_decay=0.1),
    augment=Augment(pad=0, flip=False),
)
PLACES = {  # of PyTorch's tensors in our tree
    "0.weight": "params/stem/kernel",
    "1.weight": "params/body/BatchNorm_0/scale",
    "1.bias": "params/body/BatchNorm_0/bias",
    "1.running_mean": "batch_stats/body/BatchNorm_0/mean",
    "1.running_var": "batch_stats/body/BatchNorm_0/var",
    "3.weight": "params/body/Conv_0/kernel",
    "4.weight": "params/body/BatchNorm_1/scale",
    "4.bias": "params/body/BatchNorm_1/bias",
    "4.running_mean": "batch_stats/body/BatchNorm_1/mean",
    "4.running_var": "batch_stats/body/BatchNorm_1/var",
    "8.weight": "params/head/kernel",
    "8.bias": "params/head/bias",
}
AXES = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
"""Of PyTorch's tensors, in the order of ours."""

ROWS = {name: METHODS[name] for name in ("pgd-at", "trades", "mart", "fast-at", "n-fgsm", "free")}
ROWS |= {
    "awp-pgd-at": AWP(PGDAT(bn="commit"), gamma=1e-2),
    "awp-trades": AWP(TRADES(), gamma=5e-3),
}
"""As the catalogue has them, and AWP with its paper's numbers."""


ROUNDING = 1e-6
"""Eight units of float32 at 1; the largest difference seen is 3.6e-7."""


@config
class Drawn(Start):
    """A start that is handed its noise in the place of a key, where draws are data."""

    start: Start
    noise: jax.Array

    def __call__(self, key, x, threat, logits_fn=None):
        return self.start(self.noise, x, threat, logits_fn)


@config
class Shown(Wrapper):
    """The inner method, its adversarial images among the metrics."""

    def grads(self, net, params, batch, crafted):
        g = self.inner.grads(net, params, batch, crafted)
        return g.replace(aux=g.aux.replace(metrics={**g.aux.metrics, "x_adv": crafted.x_adv}))

    def update(self, *args):
        return Method.update(self, *args)


@contextlib.contextmanager
def draws_are_data():
    def uniform(noise, shape, dtype, low, high):
        assert noise.shape == shape
        return (low + high) / 2 + (high - low) / 2 * noise

    def normal(noise, shape, dtype):
        assert noise.shape == shape
        return noise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.random, "uniform", uniform)
        patch.setattr(jax.random, "normal", normal)
        yield


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def at_step(method, golden, i):
    """The method whose attack begins with the file's noise; three attack steps, three replays."""
    if isinstance(method, AWP):
        return dataclasses.replace(method, inner=at_step(method.inner, golden, i))
    if isinstance(method, Free):
        return dataclasses.replace(method, replays=3)
    attack = method.attack
    noise = golden["normal" if isinstance(attack.start, Gaussian) else "uniform"][i]
    steps = min(attack.steps, 3)
    attack = dataclasses.replace(attack, steps=steps, start=Drawn(attack.start, noise))
    return Shown(dataclasses.replace(method, attack=attack))


def variables(golden, prefix, *step):
    """The file's weights and statistics as ours: place -> array."""
    named = {place: golden[f"{prefix}/{name}"][step] for name, place in PLACES.items()}
    return {place: value.transpose(AXES[value.ndim]) for place, value in named.items()}


@pytest.fixture(scope="module", params=ROWS)
def both(request, golden):
    """Of a method, step by step: (what the file says, what our step finds)."""
    name, images, labels = request.param, golden["image"], golden["label"]
    methods = [at_step(ROWS[name], golden, i) for i in range(STEPS)]
    before = variables(golden, "before")
    tree = unflatten_dict({place: jnp.asarray(v) for place, v in before.items()}, sep="/")
    state = create_state(
        module(), methods[0], RECIPE, jax.random.key(0), images[0], labels[0], CLASSES, shards=1
    )
    fresh = flatten_dict({"params": state.params, **state.stats}, sep="/")
    assert {k: v.shape for k, v in fresh.items()} == {k: v.shape for k, v in before.items()}
    state = state.replace(params=tree.pop("params"), stats=tree)
    step = parallel.emulate(make_step(module(), RECIPE, STEPS, CLASSES), IN_AXES, OUT_AXES)
    found = []
    for method, image, label in zip(methods, images, labels, strict=True):
        batch = {"image": image, "label": label, "index": np.arange(SIZE, dtype=np.int32)}
        with draws_are_data():
            state, metrics = step(state, method, jax.random.key(1), parallel.split(batch, 1))
        delta = state.slot[0] if name == "free" else metrics["x_adv"] - to_float(image)
        after = flatten_dict({"params": state.params, **state.stats}, sep="/")
        found.append({"loss": metrics["loss"], "delta": delta, **after})
    want = [
        {k: golden[f"{name}/{k}"][i] for k in ("loss", "delta")} | variables(golden, name, i)
        for i in range(STEPS)
    ]
    return want, found


@pytest.mark.parametrize("part", ["loss", "delta", "params", "batch_stats"])
def test_three_steps_are_those_of_the_formulas(both, part):
    for step, (want, found) in enumerate(zip(*both, strict=True), 1):
        assert want.keys() == found.keys()
        for name in (name for name in want if name.startswith(part)):
            np.testing.assert_allclose(
                found[name], want[name], rtol=0, atol=ROUNDING, err_msg=f"{name}, step {step}"
            )


def test_the_formulas_still_give_the_golden_file(golden):
    pytest.importorskip("torch")
    import training_steps

    given = {k: golden[k] for k in training_steps.problem(training_steps.SEED)}
    found = training_steps.golden(given)
    assert found.keys() == golden.keys()
    for name, values in golden.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-9, err_msg=name)


def test_the_variance_is_all_that_pytorch_commits_otherwise():
    torch = pytest.importorskip("torch")
    import torch_methods

    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 4, 4)))
    ours, theirs = torch_methods.BatchNorm(3).double(), torch.nn.BatchNorm2d(3).double()
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    change, unbiased = (bn.running_var - 0.9 for bn in (ours, theirs))
    torch.testing.assert_close(change * 32 / 31, unbiased)
    torch.testing.assert_close(
        ours.eval()(x),
        (x - ours.running_mean[:, None, None]) / (ours.running_var[:, None, None] + 1e-5).sqrt(),
    )
