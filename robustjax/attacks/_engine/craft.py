"""Run an attack over any number of images; only images that resist a stage meet the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from robustjax.attacks._core.ensemble import Ensemble, leaves, stages_of
from robustjax.attacks._core.iterative import (
    MinimumNorm,
    in_box,
    in_threat,
    iterative,
    threat_of,
)
from robustjax.attacks._core.randomized import draws_of
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._engine.examples import Examples
from robustjax.attacks._engine.inputs import check_attack, check_request
from robustjax.attacks._engine.judgement import judge, judge_one
from robustjax.attacks._engine.layout import layout_of
from robustjax.attacks._engine.ledger import Ledger, Stage, met_nan, nan_in
from robustjax.attacks._engine.model import num_classes
from robustjax.attacks._engine.setting import Setting, check_draws
from robustjax.attacks._engine.slots import Crafted, over_slots, program
from robustjax.attacks._engine.tiles import over_tiles
from robustjax.checks import INF, checked, in_body
from robustjax.threats import radius
from robustjax.threats._trees import of_example
from robustjax.typing import Attack, Cost
from robustjax.warn import warn


class Verdict(NamedTuple):
    """Results for N examples, as NumPy arrays.

    Attributes:
      image: (N, H, W, C), the adversarial images.
      distance: (N,) in the norm of the threat of the attack that made the image; inf where a
        minimum-norm attack found none.
      inside: (N,) bool: the image is inside that threat model (a minimum-norm attack may leave it).
      prediction: (N,) the model's, on that image; -1 for a model without logits.
      wrong: (N,) whether the setting's `success` holds for that image, or in which fraction of the
        draws.
      hits: (N,) the same where a target class is given: where the prediction is that class.
      stage: (N,) the stage that won, as an index into the ledger; -1: the example resists them all.
        A stage wins if it succeeds and, where a target class is given, reaches it.
    """

    image: np.ndarray
    distance: np.ndarray
    inside: np.ndarray
    prediction: np.ndarray
    wrong: np.ndarray
    hits: np.ndarray
    stage: np.ndarray

    @property
    def fooled(self) -> np.ndarray:
        """(N,) bool: the setting's `success` holds, in most draws."""
        return self.wrong > 0.5


class Measured(NamedTuple):
    """What the threat of an attack says of N adversarial images, as NumPy arrays.

    Attributes:
      distance: (N,) in its norm; -1 without a threat: jax_debug_nans refuses NaN.
      inside: (N,) bool: the image is inside the ball.
      in_box: (N,) bool: its pixels are in the box of the threat.
    """

    distance: np.ndarray
    inside: np.ndarray
    in_box: np.ndarray


@checked(attack=in_body, batch_size=(1, INF))
def perturb(
    attack: Attack,
    logits_fn: Callable,
    key: jax.Array,
    images: Any,
    labels: Any,
    *,
    targets: Any = None,
    indices: Any = None,
    batch_size: int | None = None,
    success: Success | None = None,
    draws: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Adversarial images for any number of images, on all devices.

    Of several processes (`parallel.initialize`) each takes its share of the images, and all return
    the whole: call it on every one with the same arguments.

    Args:
      attack: any attack; each stage of an ensemble sees only the examples that still resist.
      logits_fn: a batch (B, H, W, C) -> logits (B, K); see `check_model`.
      key: example i uses fold_in(key, indices[i]).
      images: (N, H, W, C), floats in the box of the attack's threat, [0, 1] by default; or uint8,
        which is divided by 255. Or inputs of any other shape, (N, ...), or a pytree of such: see
        docs/how_to/inputs.md.
      labels: (N,) integers, the true labels; for a `success` of your own any numbers (N, ...).
      targets: (N,) integers, a class to reach for each image, other than its label; a stage of an
        ensemble has won where it reaches it. For a loss that compares with other arrays (`kl`),
        those arrays, (N, ...).
      indices: (N,) integers that name the examples; None: 0 to N - 1.
      batch_size: the most images at once, all devices together, which bounds the memory; None: 256
        a device. The CPU takes 16 a device, whatever is given.
      success: (output, label) -> bool: whether a stage of an ensemble has won; None: its own.
        Labels that are no classes need one, for any attack.
      draws: on a `Randomized` model a stage of an ensemble has won where it succeeds in most of so
        many draws; None: 20.
      progress: show a progress bar.

    Returns:
      Float32 in the box, in the shape of `images`.

    Raises:
      ValueError: unusable attack, images, labels, targets, model, key or batch size.
      RuntimeError: the attack left its ball or its box.

    Warns:
      UserWarning: NaN in the loss or its gradient; the images at which it was NaN throughout come
        back unchanged or at a random start.

    Guarantees:
      On the CPU no bit of an image depends on `batch_size`, on the images beside it, on their
      order (indices permuted along), or on the number of devices, whatever the model. On an
      accelerator tiles are smaller where fewer than 256 images a device are asked for, and kernels
      may round in another way.
      Three eps, and new weights of a `Partial`, compile once.

    Two images of two pixels, which are the logits. The ball around the second holds no other
    class:

    >>> images = np.float32([0.75, 0.625, 0.25, 0.75]).reshape(2, 1, 2, 1)
    >>> attack, key = rj.attacks.FGSM(rj.threats.Linf(0.125)), jax.random.key(0)
    >>> x_adv = rj.attacks.perturb(attack, lambda x: x[:, 0, :, 0], key, images, labels=[0, 1])
    >>> x_adv.reshape(2, 2).tolist()
    [[0.625, 0.75], [0.375, 0.625]]
    """
    check_attack(attack)
    layout = layout_of(images)
    attack, images, logits_fn = layout.attack(attack), layout.pack(images), layout.model(logits_fn)
    own: Success = success or getattr(attack, "success", fooled)
    read = own if isinstance(attack, Ensemble) or own is not fooled else None
    model, key, examples, batch_size = check_request(
        logits_fn, key, images, labels, indices, batch_size, targets, attack, read
    )
    setting = Setting(model, key, own, batch_size, Ledger(), check_draws(draws, model))
    title = type(attack).__name__ if progress else None
    if isinstance(attack, Ensemble):
        image = craft(attack, setting, examples, title).image
        texts = met_nan(setting.ledger.stages)
    else:
        crafted, *_ = _run(attack, setting, examples, title, ())
        image = crafted.image
        found = isinstance(attack, MinimumNorm) & (image != examples.image).any((1, 2, 3))
        texts = nan_in(attack, np.mean(crafted.broken & ~found))
    for text in texts:
        warn(text)
    return layout.unpack(image)


def craft(
    attack: Attack,
    setting: Setting,
    examples: Examples,
    progress: str | None = None,
    path: tuple[int, ...] = (),
) -> Verdict:
    """`perturb` for checked arguments, with a verdict on every image and records in the ledger.

    `path` says which stage of which stage this is: the keys that `Ensemble.__call__` would use.
    """
    if not isinstance(attack, Ensemble):
        return _craft_leaf(attack, setting, examples, progress, path)
    stages = stages_of(attack, num_classes(setting.model, examples), examples.target)
    n = len(examples)
    verdict = Verdict(
        examples.image.copy(),
        np.zeros(n, np.float32),
        np.zeros(n, bool),
        np.full(n, -1),
        np.zeros(n, np.float32),
        np.zeros(n, np.float32),
        np.full(n, -1),
    )
    alive = np.arange(n)
    for i, stage in enumerate(stages):
        title = progress and f"{progress} {i + 1}/{len(stages)}"
        new = craft(stage, setting, examples[alive], title, (*path, i))
        better = new.inside & (new.hits >= verdict.hits[alive])
        for column, values in zip(verdict, new, strict=True):
            column[alive[better]] = values[better]
        alive = alive[new.stage < 0]
        if not alive.size:
            break
    untouched = ~verdict.inside  # every stage left its threat model: the clean image stays
    if untouched.any():
        clean = judge(setting, examples[untouched])
        verdict.prediction[untouched], verdict.wrong[untouched] = clean.prediction, clean.wrong
    return verdict._replace(inside=np.ones(n, bool))


def programs(
    attacks: Iterable[Attack], setting: Setting, examples: Examples
) -> Iterator[ClosedJaxpr]:
    """The programs for one example: the verdict, and a step of every kind of attack."""
    row = jax.tree.map(lambda a: a[0], examples.rows()) | {"target": None, "draw": np.int32(0)}
    success = jax.tree_util.Partial(setting.success)
    yield jax.make_jaxpr(judge_one)(setting.model, setting.key, success, row)
    classes = num_classes(setting.model, examples)
    parts = [iterative(leaf) for attack in attacks for leaf in leaves(attack, classes)]
    for part in {jax.tree.structure(part): part for part in parts}.values():
        yield program(part, setting.crafted_on, setting.key, examples)


def _craft_leaf(attack, setting, examples, progress, path):
    crafted, measured, seconds = _run(attack, setting, examples, progress, path)
    judged = judge(setting, examples, crafted.image)
    distance = np.where(measured.distance < 0, np.nan, measured.distance)
    inside = measured.inside
    if isinstance(attack, MinimumNorm):
        distance = np.where(judged.won, distance, np.float32(np.inf))
        inside = inside & judged.won
    won = judged.won & inside
    stages = setting.ledger.stages
    columns, each = map(np.asarray, crafted.cost), draws_of(setting.crafted_on)
    cost = Cost(*(-1 if (calls < 0).any() else each * int(calls.sum()) for calls in columns))
    unmoved = (crafted.image == examples.image).all((1, 2, 3))
    marks = crafted.unfinished, crafted.broken, unmoved
    unfinished, broken, still = (int((mark & ~won).sum()) for mark in marks)
    counts = len(examples), int(won.sum()), unfinished, broken, still
    differed = _differed(setting, examples, judged, crafted)
    stages.append(Stage(attack, path, *counts, cost, seconds, differed))
    number = np.where(won, len(stages) - 1, -1)
    said = judged.prediction, judged.wrong, judged.hits
    return Verdict(crafted.image, distance, inside, *said, number)


def _differed(setting, examples, judged, crafted) -> int | None:
    """On how many images the surrogate's verdict is another one than the model's."""
    if setting.surrogate is None:
        return None
    seen = judge(dataclasses.replace(setting, model=setting.surrogate), examples, crafted.image)
    return int((seen.won != judged.won).sum())


def _run(attack, setting, examples, progress, path) -> tuple[Crafted, Measured, float]:
    crafted, seconds = over_slots(
        iterative(attack),
        setting.crafted_on,
        setting.key,
        path,
        examples,
        setting.batch_size,
        progress,
        setting.ledger.store(path),
    )
    rows = {"x": examples.image, "position": examples.position, "x_adv": crafted.image}
    measured = over_tiles(_measure_one, (threat_of(attack),), rows, setting.batch_size)
    _verify(attack, crafted, measured)
    return crafted, measured, seconds


def _measure_one(threat, row):
    threat, x_adv, x = of_example(threat, row["position"]), row["x_adv"], row["x"]
    distance = -1.0 if threat is None else threat.distance(x_adv, x)
    inside, boxed = in_threat(threat, x_adv, x), in_box(threat, x_adv, x)
    columns: tuple[Any, ...] = jnp.asarray(distance, jnp.float32), inside, boxed
    return Measured(*columns)  # here of JAX, on the host of NumPy


def _verify(attack: Attack, crafted: Crafted, measured: Measured) -> None:
    """Raise RuntimeError for an image that the threat model does not allow."""
    name = type(attack).__name__
    if not measured.in_box.all():
        raise RuntimeError(f"{name} returned pixels outside their bounds, [0, 1] by default")
    threat, outside = threat_of(attack), ~measured.inside
    if threat is not None and outside.any() and not isinstance(attack, MinimumNorm):
        raise RuntimeError(
            f"{name} returned a distance of {measured.distance[outside].max():.9g}, more than "
            f"eps = {float(radius(threat)):.9g}"
        )
