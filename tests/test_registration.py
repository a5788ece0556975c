"""What a user registers is found by its name, belongs to them, and goes through the Python API."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from robustjax import attacks, cli, data, detection, evaluation, files, models, spec, training
from robustjax.attacks import PGD
from robustjax.attacks._registry import ATTACKS
from robustjax.config import config, number, static
from robustjax.data import Dataset
from robustjax.data.load import SOURCES
from robustjax.models.adapt import FACTORIES
from robustjax.outputs import logits_of
from robustjax.threats import Linf
from robustjax.training import Recipe
from robustjax.training.methods import Aux, Crafted, Method
from robustjax.training.schedules import Schedule


def bars(name, split):
    """Bars, upright or lying."""
    size = {"train": 64, "test": 32}[split]
    labels = np.arange(size) % 2
    images = np.random.default_rng(size).integers(0, 99, (size, 6, 6, 1))
    images[labels == 0, :, 2:4] += 150
    images[labels == 1, 2:4] += 150
    return Dataset(images.astype(np.uint8), labels, np.arange(size), name, split, 2)


@config
class Halving(Schedule):
    """A half after each of these fractions of training."""

    every: float = number(default=0.25, low=0.01)

    def __call__(self, t):
        return 0.5 ** jnp.floor(t / self.every)


@config
class Corner:
    """An attack: one step of twice the radius."""

    threat: object
    steps: int = static(default=1)

    def __call__(self, logits_fn, key, x, y, target=None):
        return PGD(self.threat, steps=self.steps, rel_step=2.0)(logits_fn, key, x, y, target)


@config
class Jittered(Method):
    """A method: uniform noise, and no gradient for it."""

    width: float = 0.1

    def perturb(self, net, params, batch, keys):
        noise = jax.vmap(lambda key: jax.random.uniform(key, batch.image.shape[1:]))(keys)
        return Crafted(jnp.clip(batch.image + self.width * (noise - 0.5), 0, 1), net.stats)

    def loss(self, net, params, batch, crafted):
        logits, stats = net.train(params, crafted.x_adv)
        return -(jax.nn.log_softmax(logits) * batch.target).sum(-1).mean(), Aux(stats, {})


class Dense(nn.Module):
    num_classes: int
    width: int = 8

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(nn.relu(nn.Dense(self.width)(x.reshape(len(x), -1))))


@config
class Loudest(detection.Detector):
    """A detector: the largest logit."""

    def statistics(self, learned, logits_fn, x):
        return logits_of(logits_fn(x)).max()


ALL = {
    "attack": (attacks.register, Corner, attacks.names),
    "data set": (data.register, bars, data.available),
    "detector": (detection.register, Loudest(), lambda: detection.DETECTORS),
    "method": (training.register, Jittered(), lambda: training.METHODS),
    "model": (models.register, Dense, models.names),
    "schedule": (training.schedules.register, Halving(), lambda: training.SCHEDULES),
}
TABLES = [
    ATTACKS,
    FACTORIES,
    SOURCES,
    detection.DETECTORS,
    training.CATALOGUE,
    training.METHODS,
    training.SCHEDULES,
]
OURS = {
    "attack": "fgsm",
    "data set": "digits",
    "detector": "entropy",
    "method": "trades",
    "model": "cnn",
    "schedule": "cosine",
}


@pytest.fixture(scope="module", autouse=True)
def registered():
    for kind, (register, value, _) in ALL.items():
        register(f"my-{kind.replace(' ', '-')}", value)
    yield
    for table in TABLES:  # other tests count what robustjax brings
        for name in [name for name in table if name.startswith("my-")]:
            del table[name]


@pytest.mark.parametrize("kind", ALL)
def test_a_name_belongs_to_who_registered_it(kind):
    register, value, known = ALL[kind]
    name = f"my-{kind.replace(' ', '-')}"
    assert name in known()
    register(name, value)  # a notebook's cell runs again
    with pytest.raises(ValueError, match=f"the {kind} '{OURS[kind]}' is robustjax's own; choose"):
        register(OURS[kind], value)
    with pytest.raises(ValueError, match=f"the {kind} '{name}' is registered by {__name__}"):
        elsewhere = types.ModuleType("elsewhere")
        exec("def again(register, name, value): register(name, value)", elsewhere.__dict__)
        elsewhere.again(register, name, value)


def test_all_of_them_make_a_run_that_is_evaluated_and_watched(tmp_path, capsys):
    train, validation = (data.load("my-data-set:any", split) for split in ("train", "validation"))
    assert (len(train), len(validation), train.name) == (58, 6, "my-data-set:any")
    recipe = Recipe(
        epochs=2,
        batch_size=16,
        lr=0.1,
        schedule=spec.parse("my-schedule:every=1/2", training.SCHEDULES),
        augment=data.Augment(pad=0, flip=False),
    )
    given = {"model": {"name": "my-model", "width": 4}, "out": tmp_path / "run"}
    method = training.METHODS["my-method"]
    training.fit(method, train, validation, **given, recipe=recipe, progress=False)
    about = files.read_json(tmp_path / "run" / "config.json")
    assert about["recipe"]["fields"]["schedule"]["fields"] == {"every": 0.5}
    again = training.fit(
        method, train, validation, **given, recipe=recipe, resume=True, progress=False
    )
    assert again.start == 6
    words = [str(tmp_path / "run"), "--attacks", "my-attack", "--threat", "linf", "--eps", "0.1"]
    cli.main(["evaluate", *words, "--curve", "none", "--batch-size", "16"])
    report = files.read_json(tmp_path / "run" / "report.json")
    assert report["n"] == 32 and "my-attack" in str(report)
    cli.main(["detect", *words, "--detectors", "my-detector", "--no-adaptive"])
    assert files.read_json(tmp_path / "run" / "detection.json")["found"].keys() == {"my-detector"}
    cli.main(["data", "list"])
    assert "Bars, upright or lying." in capsys.readouterr().out
    logits_fn, _, _ = models.load(tmp_path / "run")
    test = data.load("my-data-set:any", "test")
    images = np.asarray(data.to_float(test.images))
    attack = attacks.parse("my-attack-2", Linf(0.1))
    assert attack == Corner(Linf(0.1), 2)
    key = jax.random.key(0)
    found = evaluation.evaluate(logits_fn, images, test.labels, {"mine": attack}, key)
    assert found.robust["mine"] <= found.clean + 1e-6
