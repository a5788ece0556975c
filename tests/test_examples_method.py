"""Example: methods of your own. A loss and a row, or one class; nothing of robustjax is touched."""

import jax
import numpy as np
import pytest

from robustjax import cli, config, data, losses, models, training
from robustjax.attacks import PGD
from robustjax.attacks.starts import Gaussian
from robustjax.config import number
from robustjax.training import AWP, PGDAT, TRADES, Aux, Method, Recipe, fit
from robustjax.training.methods.base import accuracy, cross_entropy

# ---- a method that is a loss: improved KL (Cui et al., "Decoupled Kullback-Leibler divergence
# loss", NeurIPS 2024), here weighted by the probabilities of the image, not of its class


def improved_kl(logits, reference):
    """E_p[(d - E_p d)^2] / 2 + CE(logits, p) with d = logits - reference, p held fixed."""
    p = jax.lax.stop_gradient(jax.nn.softmax(reference))
    d = logits - reference
    return p @ (d - p @ d) ** 2 / 2 + losses.cross_entropy(logits, p)


IKL = TRADES(beta=4.0, attack=PGD(steps=2, start=Gaussian(1e-3)), consistency=improved_kl)


# ---- a method that is a class: adversarial training that stays near the average of its weights, in
# the manner of ReBAT (Wang et al., "Balance, imbalance, and rebalance", NeurIPS 2023)


@config.config
class Anchored(Method):
    """min E CE(z(x_adv), t) + weight KL(p_average(x_adv) || p(x_adv))."""

    attack: PGD = PGD(steps=2)
    weight: float = number(default=1.0)

    def perturb(self, net, params, batch, keys):
        return PGDAT(self.attack).perturb(net, params, batch, keys)

    def loss(self, net, params, batch, crafted):
        if net.ema == ():
            raise ValueError("Anchored needs the average of the weights: set Recipe(ema=0.99)")
        logits, stats = net.train(params, crafted.x_adv)
        apart = jax.vmap(losses.kl)(logits, net.logits(net.ema, crafted.x_adv))
        metrics = {"robust_accuracy": accuracy(logits, batch.label), "apart": apart.mean()}
        return (cross_entropy(net, logits, batch) + self.weight * apart).mean(), Aux(stats, metrics)


# ---- what holds for them

DIGITS = [data.load("digits", split).head(64) for split in ("train", "validation")]
RECIPE = Recipe(epochs=3, batch_size=64, eps_warmup=0.5, ema=0.9, augment=data.Augment(pad=0))


def test_the_loss_moves_the_clean_prediction_as_the_kl_does():
    """Theorem 1 of the paper: the variance has the gradient that the KL has by the reference."""
    logits, reference = jax.random.normal(jax.random.key(0), (2, 5))
    want = jax.grad(losses.kl, 1)(logits, reference)
    np.testing.assert_allclose(jax.grad(improved_kl, 1)(logits, reference), want, atol=1e-6)


@pytest.mark.parametrize("method", [IKL, Anchored(weight=2.0), AWP(IKL), AWP(Anchored())])
def test_it_trains_and_resumes_and_the_run_says_what_it_was(method, tmp_path):
    settings = {"model": {"name": "cnn", "width": 4}, "recipe": RECIPE, "progress": False}
    done = fit(method, *DIGITS, out=tmp_path / "run", **settings)
    assert int(done.state.bad_step) < 0 and int(done.state.updates) == 3
    assert fit(method, *DIGITS, out=done.folder, resume=True, **settings).start == 3
    _, _, about = models.load(done.folder)
    assert config.decode(about["method"], losses.NAMED) == method


def test_a_registered_method_is_a_command(tmp_path):
    training.register("anchored", Anchored(), paper="Wang et al. 2023")
    run = ["train", "anchored", "--data", "digits", "--examples", "128", "--epochs", "1"]
    run += ["--weight", "0.3", "--model", "cnn", "--width", "2", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match=r"set Recipe\(ema=0.99\)"):
        cli.main(run)
    cli.main([*run, "--ema", "0.9"])
    assert models.load(tmp_path / "run")[2]["method"]["fields"]["weight"] == 0.3
    del training.CATALOGUE["anchored"], training.METHODS["anchored"]
