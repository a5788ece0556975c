"""The g-SCE family's methods: what each minimises, what it crafts, what it asks of the model."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny import CLASSES, RECIPE, SIZE, fresh, net_and_batch

from robustjax import centers, cli, data, losses, models, parallel
from robustjax.attacks import PGD
from robustjax.attacks.targets import Ranked
from robustjax.models.classifier import Classifier
from robustjax.models.heads import attach
from robustjax.models.nets.layers import Conv
from robustjax.parallel import AXIS
from robustjax.threats import L2, Linf
from robustjax.training import (
    AWP,
    GSCE,
    LGM,
    METHODS,
    MMC,
    MMLDA,
    PGDAT,
    SCE,
    Center,
    Natural,
    card,
    fit,
)
from robustjax.training.identity import required_model
from robustjax.training.methods.base import Crafted
from robustjax.training.step import IN_AXES, OUT_AXES, create_state, make_step

DIM = 3
ATTACK = PGD(L2(0.3), steps=2)
FAMILY = ("sce", "mmlda", "mmc", "lgm", "center", "gsce")


def on_one_device(function):
    """Run under the device axis, as a training step does; compiled once for equal arguments."""
    run = jax.jit(jax.vmap(lambda _, args: function(*args), (0, None), axis_name=AXIS))
    return lambda *args: jax.tree.map(lambda a: a[0], run(jnp.zeros(1), args))


@on_one_device
def measure(method, state, net, batch):
    """(loss, aux) on the clean batch, the features and the logits it is made of."""
    seen, _ = net.forward(state.params, batch.image, "batch", method="both")
    return method.loss(net, state.params, batch, Crafted(batch.image, net.stats)), seen


@on_one_device
def craft(method, state, net, batch, keys):
    return method.perturb(net, state.params, batch, keys).x_adv


# ---- losses


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(
    ("method", "definition"),
    [
        (SCE(feature_dim=DIM), lambda h, t: -t @ jax.nn.log_softmax(h)),
        (MMC(feature_dim=DIM, weight=2.0, center_norm=3.0), lambda h, t: -2 * t @ h),
        (MMLDA(feature_dim=DIM, temperature=0.5), lambda h, t: -t @ jax.nn.log_softmax(2 * h)),
        (
            LGM(feature_dim=DIM, margin=0.5, likelihood=0.2),
            lambda h, t: -t @ jax.nn.log_softmax(h * (1 + 0.5 * t)) - 0.2 * t @ h,
        ),
        (GSCE(feature_dim=DIM), lambda h, t: -t @ jax.nn.log_softmax(h)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_loss_is_its_definition_on_the_logits(method, definition, smoothing):
    state, net, batch = net_and_batch(method)
    target = jax.vmap(lambda y: losses.smooth(y, CLASSES, smoothing))(batch.label)
    (loss, aux), (_, logits) = measure(method, state, net, batch.replace(target=target))
    want = np.mean([definition(h, t) for h, t in zip(logits, target, strict=True)])
    assert float(loss) == pytest.approx(want, rel=1e-5)
    assert set(aux.metrics) == {"accuracy"}


@pytest.mark.parametrize("covariance", ["isotropic", "diagonal", "full"])
def test_a_trained_covariance_is_trained_and_the_margin_multiplies_the_distance_alone(covariance):
    """-log p_y |L_y|^-1/2 e^-(1+a)d_y / sum ... + lambda (d_y + 1/2 log |L_y|), Wan et al."""
    method = LGM(feature_dim=DIM, margin=0.5, likelihood=0.2, covariance=covariance)
    state, net, batch = net_and_batch(method)
    head = dict(state.params["head"])
    name = "factors" if covariance == "full" else "log_precisions"
    noise = jax.random.normal(jax.random.key(2), (CLASSES * DIM * DIM,))
    head[name] = head[name] + 0.3 * noise[: head[name].size].reshape(head[name].shape)
    state = state.replace(params=state.params | {"head": head})
    (loss, _), (z, _) = measure(method, state, net, batch)
    z, own = np.asarray(z, np.float64), np.asarray(head[name], np.float64)
    precision = {
        "isotropic": lambda k: np.exp(own[k]) * np.eye(DIM),
        "diagonal": lambda k: np.diag(np.exp(own[k])),
        "full": lambda k: own[k] @ own[k].T,
    }[covariance]
    mu = np.asarray(head["centers"], np.float64)
    d = [np.einsum("na,ab,nb->n", z - m, precision(k), z - m) / 2 for k, m in enumerate(mu)]
    d = np.stack(d, 1)
    volume = np.array([np.linalg.slogdet(precision(k))[1] / 2 for k in range(CLASSES)])
    hot = np.eye(CLASSES)[np.asarray(batch.label)]
    h = volume - (1 + 0.5 * hot) * d
    classed = np.log(np.exp(h).sum(1)) - (hot * h).sum(1)
    want = classed + 0.2 * (hot * (d - volume)).sum(1)
    assert float(loss) == pytest.approx(want.mean(), rel=1e-4)
    grads = on_one_device(
        lambda method, params, net, batch: jax.grad(
            lambda p: method.loss(net, p, batch, Crafted(batch.image, net.stats))[0]
        )(params)
    )(method, state.params, net, batch)
    assert all(float(jnp.abs(grads["head"][n]).max()) > 0 for n in ("centers", name))
    x_adv = crafted(dataclasses.replace(method, adversarial="untargeted", attack=ATTACK))
    assert jnp.isfinite(x_adv).all()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_priors_weigh_the_classes_of_mmlda(temperature):
    """softmax(h / T) with them is p_k e^(-d_k / T) / sum, and the prediction its largest."""
    priors = (1.0, 2.0, 3.0, 4.0)
    method = MMLDA(temperature=temperature, feature_dim=DIM, priors=priors, center_norm=1.0)
    state, net, batch = net_and_batch(method)
    (loss, _), (z, logits) = measure(method, state, net, batch)
    mu = centers.max_mahalanobis(CLASSES, DIM, 1.0).astype(np.float64)
    d = ((np.asarray(z, np.float64)[:, None] - mu[None]) ** 2).sum(-1) / 2
    p = np.array(priors) / 10 * np.exp(-d / temperature)
    p /= p.sum(1, keepdims=True)
    want = -np.log(p[np.arange(SIZE), np.asarray(batch.label)])
    assert float(loss) == pytest.approx(want.mean(), rel=1e-4)
    np.testing.assert_array_equal(logits.argmax(-1), p.argmax(-1))
    assert json.loads(json.dumps(method.model)) == method.model


def test_the_center_loss_pulls_towards_its_centers_and_moves_them():
    """Against a transcription of the published update, over two batches."""
    method = Center(feature_dim=DIM, weight=0.3, rate=0.25)
    state, net, batch = net_and_batch(method)
    label = np.asarray(batch.label)
    running = np.zeros((CLASSES, DIM))
    np.testing.assert_array_equal(net.stats["centers"]["head"]["running"], running)
    for _ in range(2):
        (loss, aux), (z, logits) = measure(method, state, net, batch)
        ce = float(jax.vmap(losses.cross_entropy)(logits, batch.label).mean())
        pull = np.mean([0.5 * ((z[i] - running[y]) ** 2).sum() for i, y in enumerate(label)])
        assert float(loss) == pytest.approx(ce + 0.3 * pull, rel=1e-5)
        for j in range(CLASSES):
            of_class = np.asarray(z, np.float64)[label == j]
            delta = sum(running[j] - a for a in of_class) / (1 + len(of_class))
            running[j] -= 0.25 * delta
        net = net.replace(stats=aux.stats)
        np.testing.assert_allclose(net.stats["centers"]["head"]["running"], running, atol=1e-6)


def test_no_gradient_moves_the_running_centers():
    state = fresh(Center(feature_dim=DIM))
    paths = jax.tree_util.tree_leaves_with_path((state.params, state.opt_state, state.ema))
    assert not [p for p, _ in paths if "running" in jax.tree_util.keystr(p)]


# ---- crafting


def crafted(method, label=None):
    state, net, batch = net_and_batch(method)
    batch = batch if label is None else batch.replace(label=label)
    return craft(method, state, net, batch, jax.vmap(jax.random.key)(jnp.arange(SIZE)))


def by_hand(method, attack, target=None):
    """The examples of this attack on these classes, by default the predicted ones."""

    @on_one_device
    def run(attack, state, net, batch, target, keys):
        if target is None:
            target = net.forward(state.params, batch.image, "batch")[0].argmax(-1)
        x, y = batch.image, batch.label
        return net.craft(attack, state.params, keys, x, y, target, "batch")[0]

    return run(attack, *net_and_batch(method), target, jax.vmap(jax.random.key)(jnp.arange(SIZE)))


def test_natural_members_train_on_the_images():
    method = MMC(feature_dim=DIM)
    assert method.on_clean and not MMC("targeted").on_clean
    _, net, batch = net_and_batch(method)
    assert method.perturb(net, None, batch, None).x_adv is batch.image


def test_untargeted_examples_leave_the_predicted_class_by_the_member_s_own_loss():
    method = MMC("untargeted", ATTACK, feature_dim=DIM)
    x_adv = crafted(method)
    own = dataclasses.replace(ATTACK, loss=losses.mmc)
    np.testing.assert_allclose(x_adv, by_hand(method, own), atol=1e-6)
    others = jnp.roll(net_and_batch(method)[2].label, 1)
    np.testing.assert_array_equal(x_adv, crafted(method, others))
    named = dataclasses.replace(ATTACK, loss=losses.kl, target=Ranked())
    np.testing.assert_array_equal(x_adv, crafted(dataclasses.replace(method, attack=named)))


def test_targeted_examples_go_to_any_class():
    method = MMC("targeted", ATTACK, feature_dim=DIM)
    drawn = jax.vmap(
        lambda i: jax.random.randint(jax.random.split(jax.random.key(i))[1], (), 0, CLASSES)
    )(jnp.arange(SIZE))
    assert set(drawn.tolist()) == set(range(CLASSES))
    own = dataclasses.replace(ATTACK, loss=lambda output, target: -losses.mmc(output, target))
    np.testing.assert_allclose(crafted(method), by_hand(method, own, drawn), atol=1e-6)


def test_awp_wraps_a_member():
    inner = MMC(feature_dim=DIM, center_norm=1.0)
    method = AWP(inner, gamma=0.02)
    assert method.model == inner.model and method.on_clean
    state, net, batch = net_and_batch(method)

    grads = on_one_device(
        lambda method, net, params, batch: method.grads(
            net, params, batch, Crafted(batch.image, net.stats)
        )
    )
    gradients = grads(method, net, state.params, batch)
    for w, moved in zip(*map(jax.tree.leaves, (state.params, gradients.anchor)), strict=True):
        assert bool((w == moved).all()) == (w.ndim < 2)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients.grads))


# ---- the model


@pytest.mark.parametrize("name", FAMILY)
def test_every_member_has_its_head_and_card(name):
    method = METHODS[name]
    model = models.create("cnn", num_classes=10, width=2, **method.model)
    variables = models.init(model, jax.random.key(0), (8, 8, 1))
    logits_fn, features_fn = models.apply(model, variables)
    x = jnp.zeros((2, 8, 8, 1))
    assert features_fn(x).shape == (2, 64) and logits_fn(x).shape == (2, 10)
    assert json.loads(json.dumps(method.model)) == method.model
    recipe = card(name).recipe
    assert recipe is card("mmc").recipe and recipe.optimizer.decay == "convolutions"


def test_the_card_is_that_of_the_authors_code():
    """Epochs of 50,000 / 50 steps; Keras's strict `epoch > 100`, from 0, is after epoch 101."""
    recipe = card("mmc").recipe
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer.momentum) == (200, 50, 0.9)
    assert recipe.optimizer.weight_decay == pytest.approx(2 * 1e-4)  # of Keras's l2(1e-4)
    middles = (np.array([1, 101, 102, 151, 152, 200]) - 0.5) / recipe.epochs
    rates = [recipe.lr * float(recipe.schedule(t)) for t in middles]
    np.testing.assert_allclose(rates, [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-5)
    assert recipe.augment == data.Augment(pad=0, shift=0.1, flip=True)


def test_a_member_s_choices_reach_its_model():
    assert GSCE(precisions="isotropic").model["precisions"] == "isotropic"
    assert MMLDA(center_norm=3.0).model["center_norm"] == 3.0
    assert MMC(center_norm=3.0).model["center_norm"] == 3.0
    assert MMC(centers="random", center_seed=3).model == {
        "head": "random-centers",
        "feature_dim": 64,
        "center_norm": 10.0,
        "center_seed": 3,
    }


def test_fixed_centers_are_in_no_state():
    """Neither parameters, nor optimiser state, nor average, nor statistics; so nothing decays."""
    linear = sum(a.size for a in jax.tree.leaves(fresh(SCE(feature_dim=DIM)).params))
    for member in (MMC(), MMLDA(), MMC(centers="random")):
        state = fresh(dataclasses.replace(member, feature_dim=DIM))
        assert "head" not in state.params and set(state.stats) == {"batch_stats"}
        shapes = [a.shape for a in jax.tree.leaves(state)]
        assert (CLASSES, DIM) not in shapes
        ours = sum(a.size for a in jax.tree.leaves(state.params))
        assert linear - ours == CLASSES * DIM + CLASSES


@pytest.mark.parametrize("method", [MMC(centers="packing"), MMLDA(centers="packing")])
def test_more_classes_than_a_simplex_has_room_for_train_on_a_packing(method):
    """Five in the plane: a pentagon, which no step moves."""
    method = dataclasses.replace(method, feature_dim=2, center_norm=2.0)
    label = np.arange(SIZE, dtype=np.int32) % 5
    image = np.random.default_rng(0).integers(0, 256, (SIZE, 4, 4, 1), np.uint8)
    body, head = attach(Plane(), 5, **method.model)
    module = Classifier(Conv(8, 1), body, head)
    recipe = dataclasses.replace(RECIPE, batch_size=SIZE)
    state = create_state(module, method, recipe, jax.random.key(0), image, label, 5, 1)
    step = parallel.emulate(make_step(module, recipe, 1, 5), IN_AXES, OUT_AXES)
    batch = {"image": image, "label": label, "index": np.arange(SIZE, dtype=np.int32)}
    new, _ = step(state, method, jax.random.key(1), parallel.split(batch, 1))
    assert not np.array_equal(*(jax.tree.leaves(s.params)[0] for s in (new, state)))
    found = new.stats["centers"]["head"]["packing"]
    np.testing.assert_array_equal(found, centers.packing(5, 2, 2.0))


def test_the_method_and_the_caller_agree_on_the_model():
    asked = required_model({"name": "cnn", "feature_dim": 64}, MMC())
    assert asked == {"name": "cnn"} | MMC().model
    assert required_model({"name": "cnn"}, PGDAT()) == {"name": "cnn"}
    with pytest.raises(ValueError, match="MMC needs a model with head 'max-mahalanobis', not 'l"):
        required_model({"name": "cnn", "head": "linear"}, MMC())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MMC("both"), "adversarial must be one of none, untargeted, targeted, got 'both'"),
        (lambda: SCE(attack="pgd-10"), "attack must be a PGD"),
        (lambda: SCE(bn="eval"), "bn must be one of running, batch, commit, got 'eval'"),
        (lambda: MMLDA(temperature=0.0), "temperature"),
        (
            lambda: MMC(centers="rand"),
            "centers must be one of max-mahalanobis, random, packing, got",
        ),
        (lambda: GSCE(precisions="half"), "precisions must be one of diagonal, isotropic, full"),
        (lambda: LGM(covariance="half"), "covariance must be one of identity, isotropic"),
        (lambda: MMLDA(priors=(1.0, 0.0)), "priors must be positive numbers"),
        (lambda: MMC(weight=-1.0), "weight"),
        (lambda: LGM(margin=-1.0), "margin"),
        (lambda: LGM(likelihood=-1.0), "likelihood"),
        (lambda: Center(rate=2.0), "rate"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_center_norms_that_cannot_be_are_refused_before_training(tmp_path):
    sets = data.load("digits", "train"), data.load("digits", "validation")
    with pytest.raises(ValueError, match="center_norm must lie in"):
        MMC(center_norm=-1.0)
    with pytest.raises(ValueError, match="10 equidistant centers need 9 dimensions, got 8"):
        fit(MMC(feature_dim=8), *sets, model={"name": "cnn"}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- end to end


class Plane(nn.Module):
    """One hidden layer on two numbers."""

    @nn.compact
    def __call__(self, h, bn):
        return nn.relu(nn.Dense(16)(h.reshape(len(h), -1)))


def test_mmc_separates_gaussians_in_the_plane():
    rng = np.random.default_rng(0)
    label = np.arange(60, dtype=np.int32) % 3
    points = np.array([[80, 80], [180, 100], [110, 190]])[label] + rng.normal(0, 10, (60, 2))
    image = points.astype(np.uint8).reshape(60, 1, 1, 2)
    method = MMC(feature_dim=2, center_norm=1.0)
    body, head = attach(Plane(), 3, **method.model)
    module = Classifier(Conv(8, 1), body, head, mean=(0.5, 0.5), std=(0.2, 0.2))
    recipe = dataclasses.replace(RECIPE, batch_size=60, augment=data.Augment(pad=0, flip=False))
    state = create_state(module, method, recipe, jax.random.key(0), image, label, 3, 1)
    step = parallel.emulate(make_step(module, recipe, 60, 3), IN_AXES, OUT_AXES)
    batch = {"image": image, "label": label, "index": np.arange(60, dtype=np.int32)}
    for _ in range(60):
        state, metrics = step(state, method, jax.random.key(1), parallel.split(batch, 1))
    assert metrics["accuracy"] == 1.0


def test_a_model_trained_from_the_command_line_predicts_the_nearest_center(tmp_path):
    out = tmp_path / "run"
    flags = ["--width", "4", "--epochs", "4", "--batch-size", "64", "--feature-dim", "16"]
    cli.main(["train", "mmc", "--data", "digits", "--model", "cnn", "--out", str(out), *flags])
    logits_fn, features_fn, config = models.load(out)
    assert config["model"]["head"] == "max-mahalanobis" and config["model"]["feature_dim"] == 16
    test = data.load("digits", "test")
    images = data.to_float(test.images)
    z, logits = features_fn(images), logits_fn(images)
    mu = centers.max_mahalanobis(10, 16, 10.0)
    squares = ((np.asarray(z)[:, None] - mu[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(logits.argmax(-1), squares.argmin(-1))
    assert (logits.argmax(-1) == test.labels).mean() > 0.6
    with np.load(out / "weights.npz") as weights:
        assert not [name for name in weights.files if "head" in name]


def test_defaults_are_natural_against_eight_levels():
    for name in FAMILY:
        assert METHODS[name].on_clean and METHODS[name].attack.threat == Linf(8 / 256)
        assert float(METHODS[name].attack.size) == pytest.approx(2 / 256)
    assert Natural().on_clean and not PGDAT().on_clean
