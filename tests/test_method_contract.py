"""The laws of training methods, over all rows. A new method is one more row."""

import dataclasses
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import (
    CLASSES,
    RECIPE,
    SIZE,
    Watched,
    examples,
    fresh,
    helper_run,
    module,
    net_and_batch,
    with_extra,
)

from robustjax import losses, parallel
from robustjax.attacks import PGD
from robustjax.attacks.starts import Gaussian, Uniform, Zero
from robustjax.attacks.steps import Unclipped
from robustjax.attacks.stops import Misclassified, Stationary
from robustjax.attacks.targets import Random
from robustjax.checkpoint import Checkpoints
from robustjax.config import config
from robustjax.threats import L2, Linf
from robustjax.training import (
    ALP,
    AWP,
    CAT,
    HAT,
    HE,
    LBGAT,
    LGM,
    LLR,
    MART,
    MMA,
    MMC,
    PGDAT,
    RCE,
    SAT,
    SCORE,
    TLA,
    TRADES,
    UAT,
    YOPO,
    AdaNet,
    AVmixup,
    Center,
    Curriculum,
    FeatureScattering,
    Free,
    GradAlign,
    LevelSets,
    MarginBlend,
    Natural,
    Optimizer,
    RectifiedRejection,
    TradesYOPO,
    threat_of,
)
from robustjax.training.schedules import Piecewise
from robustjax.training.step import IN_AXES, OUT_AXES, make_step

THREAT = L2(0.3)
CE = PGD(THREAT, steps=2)
KL = PGD(THREAT, steps=2, start=Gaussian())
BOX = PGD(Linf(0.05), steps=2)
NEAR = dataclasses.replace(BOX, start=Gaussian())
N_FGSM = PGD(Linf(0.05), steps=1, rel_step=1.0, start=Uniform(2.0), rule=Unclipped())
METHODS = {  # every run keeps a moving average of the weights too: see RECIPE
    "natural": Natural(),
    "pgd-at": PGDAT(CE),
    "early-stopped multi-target pgd-at, batch statistics": PGDAT(
        dataclasses.replace(
            CE,
            loss=losses.multi_target,
            target=Random(redraw=True, with_label=True),
            stop=Misclassified(1, (0.5,)),
        ),
        bn="batch",
    ),
    "trades": TRADES(attack=KL),
    "awp(trades)": AWP(TRADES(attack=KL)),
    "sat": SAT(attack=KL, start=0.0),
    "awp(sat)": AWP(SAT(attack=KL, start=0.0)),
    "free": Free(THREAT, replays=2),
    "mmc, untargeted": MMC("untargeted", CE, feature_dim=3, center_norm=1.0),
    "lgm": LGM(feature_dim=3),
    "center": Center(feature_dim=3),
    "rce": RCE(),
    "margin-blend": MarginBlend(BOX),
    "focal dynamic-at, clean statistics too": PGDAT(
        dataclasses.replace(BOX, stop=Stationary()), focal=2.0, commits=("clean", "adversarial")
    ),
    # In L2: a sign of the tiny gradient at its start would make much of a last bit.
    "score": SCORE(attack=KL),
    "mart, extra data": MART(BOX),
    "uat-ot, extra data": UAT(BOX, weight=1.0),
    "avmixup": AVmixup(BOX, gamma=1.0, vertex=0.7),
    "n-fgsm, committed statistics": PGDAT(N_FGSM, "commit"),
    "grad-align, committed statistics": GradAlign(dataclasses.replace(BOX, start=Zero())),
    "curriculum, committed statistics": Curriculum(BOX, strength=2),
    "he(free)": HE(Free(Linf(0.05), replays=2)),
    "he(awp(alp))": HE(AWP(ALP(BOX))),
    "mma": MMA(BOX),
    "cat": CAT(BOX, smoothing=1.0, margin=1.0),
    "feature-scattering": FeatureScattering(Linf(0.05), smoothing=0.2, iterations=10),
    "yopo": YOPO(Linf(0.05), rounds=2),
    "trades-yopo": TradesYOPO(threat=Linf(0.05), rounds=2),
    "tla": TLA(BOX),
    "level-sets": LevelSets(PGD(Linf(0.3), steps=3), reach=1.0, wrong=1.0),
    "lbgat": LBGAT(attack=NEAR),
    "hat": HAT(helper_run(), gamma=0.1, attack=NEAR),
    "rr(trades)": RectifiedRejection(TRADES(attack=NEAR)),
    "adanet(pgd-at)": AdaNet(PGDAT(BOX)),
    "llr": LLR(attack=CE),  # in L2, as score: Adam too makes much of a last bit
}
COMMITS = dict.fromkeys(
    (
        "trades",
        "awp(trades)",
        "sat",
        "awp(sat)",
        "focal dynamic-at, clean statistics too",
        "score",
        "mart, extra data",
        "uat-ot, extra data",
        "grad-align, committed statistics",
        "he(awp(alp))",
        "mma",
        "trades-yopo",
    ),
    2,
) | {"lbgat": 3, "hat": 3, "rr(trades)": 3, "tla": 4}
"""How many forwards of a loss move the statistics, where it is not one."""
PROBES = ("awp(trades)", "sat", "free", "center")
STEPS = 20


def batch_of(name):
    return with_extra() if "extra" in name else examples()


def compiled(name, recipe=RECIPE):
    """One emulated step for all methods of a head; jit's cache tells them, and shards, apart."""
    return emulated(module(METHODS[name]), recipe)


@functools.cache
def emulated(model, recipe):
    """The step; it also returns what it crafted, unless that is made in a loop."""
    step = make_step(model, recipe, STEPS, CLASSES)

    def and_crafted(state, method, key, batch):
        inner, seen = type(getattr(method, "innermost", method)), []
        perturb = inner.perturb

        def noting(*args):
            seen.append(perturb(*args))
            return seen[-1]

        with mock.patch.object(inner, "perturb", noting):
            out = step(state, method, key, batch)
        return *out, () if recipe.accumulate > 1 or jax.tree.leaves(state.slot) else seen[-1]

    return parallel.emulate(and_crafted, IN_AXES, (*OUT_AXES, 0))


def on_devices(name, recipe=RECIPE):
    """The state after one step on four devices."""
    step = make_step(module(METHODS[name]), recipe, STEPS, CLASSES)
    step = parallel.data_parallel(step, IN_AXES, OUT_AXES, donate_argnums=0)
    state = parallel.place(jax.tree.map(jnp.copy, fresh(METHODS[name], 4, recipe)), IN_AXES[0])
    return step(state, METHODS[name], jax.random.key(1), parallel.split(examples(), 4))[0]


@functools.cache
def run(name, shards, steps, recipe=RECIPE):
    state, trace = fresh(METHODS[name], shards, recipe), []
    if steps == STEPS:  # on from what is there
        state, trace = run(name, shards, STEPS // 2, recipe)
        trace = list(trace)
    batch = parallel.split(batch_of(name), shards)
    for _ in range(steps - len(trace)):
        state, metrics, _ = compiled(name, recipe)(state, METHODS[name], jax.random.key(1), batch)
        trace.append({k: float(v) for k, v in metrics.items()})
    return state, trace


def leaves(state):
    """All arrays of a state, the slot's as one batch whatever the shards."""
    return jax.tree.leaves(state.replace(slot=parallel.merge(state.slot)))


def assert_close(a, b, atol):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        largest = max(1.0, float(np.abs(y).max(initial=0)))
        np.testing.assert_allclose(x, y, atol=atol * largest, rtol=1e-5)


rows = pytest.mark.parametrize("name", METHODS)


@rows
def test_one_shard_equals_four(name):
    """Which are devices for some rows, and emulated for the others."""
    four = on_devices(name) if name in PROBES else run(name, 4, 1)[0]
    assert_close(run(name, 1, 1)[0], four, 1e-5)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "level-sets"])
def test_loss_falls(name):
    """And accuracy rises. Level sets count only the images whose boundary is found, more and more
    of them: their own tests train them. Where a network follows a teacher, it lags behind, and
    the teacher's accuracy rises first. Soft targets give the loss a floor: those that SAT and
    AVmixup make, and RCE's reverse label, (1 - t) / (K - 1), whose entropy it is.
    """
    trace = run(name, 1, STEPS)[1]
    reverse = (1 - np.asarray(losses.smooth(0, CLASSES, RECIPE.label_smoothing))) / (CLASSES - 1)
    floor = -reverse @ np.log(reverse) if name == "rce" else 0.0
    loss = [m["loss"] - floor for m in trace]
    names = ("teacher_accuracy", "robust_accuracy", "accuracy")
    correct = [next(m[n] for n in names if n in m) for m in trace]
    assert np.isfinite(loss).all()
    share = 0.9 if name in ("sat", "awp(sat)", "avmixup") else 0.8
    assert np.mean(loss[-3:]) < share * np.mean(loss[:3])
    assert np.mean(correct[-3:]) > max(0.7, np.mean(correct[:3]))


@rows
def test_resume_is_exact(name, tmp_path):
    half, _ = run(name, 1, STEPS // 2)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(STEPS // 2, half, {})
    state, _ = checkpoints.restore(fresh(METHODS[name]), {})
    state = jax.tree.map(np.asarray, state)  # placed by Orbax it would compile anew
    batch = parallel.split(batch_of(name), 1)
    for _ in range(STEPS - STEPS // 2):
        state, _, _ = compiled(name)(state, METHODS[name], jax.random.key(1), batch)
    for a, b in zip(leaves(state), leaves(run(name, 1, STEPS)[0]), strict=True):
        np.testing.assert_array_equal(a, b)


@functools.cache
def crafted(name):
    """What the first step crafts; of Free, whose step is a loop, the images it begins with."""
    method, batch = METHODS[name], parallel.split(batch_of(name), 1)
    found = compiled(name)(fresh(method), method, jax.random.key(1), batch)[-1]
    if found == ():
        state, net, batch = net_and_batch(method, batch_of(name))
        keys = jax.random.split(jax.random.key(2), (1, SIZE))
        found = jax.vmap(lambda k: method.perturb(net, state.params, batch, k))(keys)
    return found


@rows
def test_crafted_images_lie_in_the_threat_set(name):
    _, _, batch = net_and_batch(METHODS[name])
    x_adv = crafted(name).x_adv[0]
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    threat = threat_of(METHODS[name])
    reach = (3 if "n-fgsm" in name else 1) * threat.eps  # from twice the ball, and unclipped
    assert (jax.vmap(threat.distance)(x_adv, batch.image) <= reach * (1 + 1e-5)).all()


@rows
def test_only_committing_crafting_moves_the_statistics(name):
    state, _, _ = net_and_batch(METHODS[name])
    after = jax.tree.map(lambda a: a[0], crafted(name).stats)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), state.stats, after)
    moved = not all(jax.tree.leaves(same))
    assert moved == ("committed" in name)


@rows
def test_forwards_that_commit_are_counted(name):
    state, net, batch = net_and_batch(METHODS[name], batch_of(name))
    watched = Watched(net.stats, net.progress, net.module, modes=[])

    def loss(found):
        return METHODS[name].loss(watched, state.params, batch, found)[0]

    jax.eval_shape(jax.vmap(loss, axis_name=parallel.AXIS), jax.eval_shape(lambda: crafted(name)))
    assert watched.modes.count("commit") == COMMITS.get(name, 1)


@pytest.mark.parametrize(
    ("name", "modes"),
    [
        ("avmixup", {"batch"}),
        ("tla", {"running"}),
        ("mma", {"running"}),
        ("cat", {"running"}),
        ("feature-scattering", {"running"}),
        ("trades-yopo", {"running"}),
        ("llr", {"capture", "running"}),  # the running ones then are those that were captured
        ("level-sets", {"running", "batch"}),  # the search, and the boundary's gradient
    ],
)
def test_crafting_sees_the_statistics_that_the_authors_see(name, modes):
    state, net, batch = net_and_batch(METHODS[name])
    watched = Watched(net.stats, net.progress, net.module, modes=[])

    def perturb(keys):
        return METHODS[name].perturb(watched, state.params, batch, keys)

    keys = jax.random.split(jax.random.key(0), (1, SIZE))
    jax.eval_shape(jax.vmap(perturb, axis_name=parallel.AXIS), keys)
    assert set(watched.modes) == modes


@rows
def test_the_step_lowers_for_accelerators(name):
    batch = parallel.split(batch_of(name), 1)
    args = (fresh(METHODS[name]), METHODS[name], jax.random.key(1), batch)
    text = compiled(name).trace(*args).lower(lowering_platforms=("tpu", "cuda")).as_text()
    assert "stablehlo.convolution" in text


def test_the_helper_s_weights_never_change():
    helper, trained = fresh(METHODS["hat"]).frozen, run("hat", 1, STEPS)[0]
    before, after = jax.tree.leaves(helper), jax.tree.leaves(trained.frozen)
    assert len(before) == 8
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_new_numbers_compile_nothing():
    run("trades", 1, 1)
    step, batch = compiled("trades"), parallel.split(examples(), 1)
    programs = step._cache_size()
    for beta, eps in ((1.0, 0.1), (3.0, 0.2), (5.0, 0.4)):
        method = TRADES(beta, attack=dataclasses.replace(KL, threat=L2(eps)))
        step(fresh(METHODS["trades"]), method, jax.random.key(1), batch)
    assert step._cache_size() == programs


def test_accumulation_averages_the_slices():
    """BatchNorm sees the slices apart, so it is the mean of the slices' gradients."""
    recipe = dataclasses.replace(
        RECIPE, accumulate=2, ema=0.0, optimizer=Optimizer(momentum=0.0, weight_decay=0.0)
    )
    single = dataclasses.replace(recipe, accumulate=1)
    state = fresh(METHODS["natural"], 1, single)
    parts = parallel.split(examples(), 2)
    halves = [{k: v[i : i + 1] for k, v in parts.items()} for i in (0, 1)]
    steps = [
        compiled("natural", single)(state, METHODS["natural"], jax.random.key(1), h)[0]
        for h in halves
    ]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, steps[0].params, steps[1].params)
    whole, _ = run("natural", 1, 1, recipe)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_slices_use_no_key_twice():
    """JAX's check (conftest.py) passes the program that trains. It has to be off for the emulation:
    there vmap lets scan transpose the keys, and a transposed key is a used one to the check.
    """
    recipe, method = dataclasses.replace(RECIPE, accumulate=2), METHODS["pgd-at"]
    step = make_step(module(method), recipe, STEPS, CLASSES)
    run = parallel.data_parallel(step, IN_AXES, OUT_AXES)
    args = jax.random.key(1), parallel.split(examples(), 4)
    state, _ = run(parallel.place(fresh(method, 4, recipe), IN_AXES[0]), method, *args)
    with jax.debug_key_reuse(False):
        same, _, _ = compiled("pgd-at", recipe)(fresh(method, 4, recipe), method, *args)
    assert_close(state, same, 1e-5)


@config
class Diverging(Natural):
    """A loss that is no number."""

    def loss(self, net, params, batch, crafted):
        loss, aux = super().loss(net, params, batch, crafted)
        return jnp.log(-1.0 - loss**2), aux


def test_a_bad_step_costs_nothing():
    state = fresh(METHODS["natural"])
    batch = parallel.split(examples(), 1)
    after, _, _ = compiled("natural")(state, Diverging(), jax.random.key(1), batch)
    assert after.bad_step == 0
    later, _, _ = compiled("natural")(after, METHODS["natural"], jax.random.key(1), batch)
    for a, b in zip(
        jax.tree.leaves(state), jax.tree.leaves(later.replace(bad_step=state.bad_step)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_eps_follows_its_warm_up_and_its_schedule():
    recipe = dataclasses.replace(RECIPE, eps_warmup=1.0, eps_schedule=Piecewise((0,)))
    state, _ = run("free", 1, 1, recipe)
    image = examples()["image"] / 255.0
    moved = np.sqrt(((state.slot[0]) ** 2).sum((1, 2, 3)))
    assert image.shape == state.slot[0].shape
    np.testing.assert_allclose(moved.max(), THREAT.eps * 0.1 / STEPS, rtol=1e-3)


def test_what_cannot_be_combined_says_so():
    with pytest.raises(ValueError, match="AWP cannot wrap Free"):
        AWP(Free()).update(None, None, None, None, None)
    with pytest.raises(ValueError, match="cannot accumulate"):
        run("free", 1, 1, dataclasses.replace(RECIPE, accumulate=2))
