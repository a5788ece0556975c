"""A target selection of one's own: a class, and every attack has it, in no file of robustjax.

The one here goes to the class whose mean feature is nearest to the image's, as in feature-level
attacks: it looks at the features that the model returns beside the logits.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import evaluation, losses
from robustjax.attacks import APGD, FAB, FMN, PGD, CarliniWagnerL2, MultiTargeted, Square, perturb
from robustjax.attacks.targets import Target
from robustjax.config import config
from robustjax.threats import L2, Linf

# --- what a user writes -----------------------------------------------------------------------


@config
class NearestFeatures(Target):
    """The wrong class whose mean feature is nearest to the image's."""

    means: jax.Array  # (K, D)

    def __call__(self, key, x, y, logits_fn):
        z = logits_fn(x)["features"]
        far = jnp.sum((self.means - z[None]) ** 2, -1)
        return jnp.argmin(jnp.where(jnp.arange(len(far)) == y, jnp.inf, far))


# ----------------------------------------------------------------------------------------------

N, K, D = 12, 5, 6
RNG = np.random.default_rng(0)
X = RNG.uniform(0.2, 0.8, (N, 4, 4, 1)).astype(np.float32)
FEATURES = RNG.normal(size=(16, D)).astype(np.float32)
HEAD = RNG.normal(size=(D, K)).astype(np.float32)
MEANS = RNG.normal(size=(K, D)).astype(np.float32)


def model(x):
    z = jnp.tanh(x.reshape(len(x), -1) @ FEATURES)
    return {"logits": z @ HEAD, "features": z}


OUT = model(X)
Y = np.asarray(OUT["logits"]).argmax(1)
KEY, TARGET, INF = jax.random.key(0), NearestFeatures(MEANS), float("inf")
FAR = np.linalg.norm(MEANS[None] - np.asarray(OUT["features"])[:, None], axis=-1)
NEAREST = np.where(np.arange(K) == Y[:, None], np.inf, FAR).argmin(1)
ATTACKS = {
    "pgd": PGD(Linf(0.5), 40, target=TARGET),
    "apgd-dlr": APGD(Linf(0.5), 40, loss=losses.targeted_dlr, target=TARGET),
    "square": Square(Linf(0.5), queries=300, target=TARGET),
    "fmn": FMN(Linf(INF), 60, target=TARGET),
    "fab": FAB(L2(INF), 30, target=TARGET),
    "cw": CarliniWagnerL2(steps=60, target=TARGET),
}


def test_the_classes_are_neither_the_label_nor_always_the_most_likely():
    ranked = np.argsort(-np.asarray(OUT["logits"]), 1)
    assert (NEAREST != Y).all() and (ranked[:, 1] != NEAREST).any()


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_goes_there(name):
    """A step of each lowers the loss of the class that was chosen, not of another."""
    z = perturb(ATTACKS[name], model, KEY, X, Y)
    before, after = (jax.vmap(losses.margin)(model(i)["logits"], NEAREST) for i in (X, z))
    moved = (z != X).any((1, 2, 3))
    assert moved.mean() > 0.7 and (np.asarray(after < before)[moved]).mean() > 0.6


def test_it_costs_a_forward_pass_and_makes_way_for_ranks():
    with pytest.warns(UserWarning, match="gradient leads nowhere"):  # tanh saturates within .5
        report = evaluation.evaluate(model, X, Y, {"pgd": ATTACKS["pgd"]}, KEY)
    assert report.stages["pgd"][0]["forwards"] == N * (40 + 1)
    assert report.robust["pgd"] < 0.3
    assert MultiTargeted(ATTACKS["pgd"], 2).stages(K)[1].target.rank == 2
