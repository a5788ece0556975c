"""What to distrust in a model before any attack: each flag says what is odd and what to do."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.attacks._core.randomized import Randomized, averaged, redraw
from robustjax.attacks._engine.examples import Examples, are_classes
from robustjax.attacks._engine.judgement import Judgement, judge
from robustjax.attacks._engine.model import one_example
from robustjax.attacks._engine.setting import Setting
from robustjax.attacks._engine.tiles import over_tiles
from robustjax.losses import margin
from robustjax.outputs import float_logits, part
from robustjax.threats import radius
from robustjax.threats._trees import of_example
from robustjax.typing import Threat

FEW = 256
"""How many images the checks of the model look at."""
SIDE_BY_SIDE = 16
"""How many of them the checks of its whole output look at, which may be large."""
CONSTANT = 0.95
"""The fraction of the images that one class may be predicted on, if the others occur as often."""
LEAST = 20
"""How few images do not say whether a model is constant."""
DIRECTIONS = 16
"""How many random directions a gradient has to beat, at `STEEP` images."""
STEEP = 32
"""How many images the check of gradients looks at."""
MISLED = 0.1
"""The fraction of them at which a gradient may lead less far uphill than a random direction."""


def of_model(
    setting: Setting, examples: Examples, clean: Judgement, threat: Threat | None = None
) -> list[str]:
    """Flags of the model, before any attack: looks at the first few images only.

    Args:
      setting, examples: of the evaluation.
      clean: what the model makes of the examples.
      threat: in whose ball gradients should lead uphill; None: nobody follows them.
    """
    few = examples[np.arange(min(len(examples), FEW))]
    known = jax.tree.map(lambda column: column[: len(few)], clean)
    checks = (_probabilities, _scale, _random, _batch, _no_logits)
    found = [check(setting, few, known) for check in checks]
    found.append(_constant(examples, clean))
    found += _slopes(setting, examples[~clean.fooled], clean, threat)
    return [text for text in found if text]


def _no_logits(setting, few, clean):
    if clean.logits is not None:
        return None
    return (
        "the model returns no logits (B, K), so nothing looked for probabilities in their place, "
        "and the report holds no predictions: accuracies count what `success` says"
    )


def _probabilities(setting, few, clean):
    if clean.logits is None:
        return None
    z = clean.logits.astype(np.float32)
    if (z >= 0).all() and (z <= 1).all() and np.allclose(z.sum(-1), 1, atol=1e-2):
        return (
            "the model returns probabilities, not logits: where they saturate no loss has a "
            "gradient; return what goes into the softmax"
        )
    return None


def _scale(setting, few, clean):
    """Whether the model is right more often if the pixels are not in [0, 1]."""
    if few.image.min() < 0 or few.image.max() > 1:  # their bounds are others
        return None
    x, accuracy = few.image, 1 - clean.fooled.mean()
    mean, std = (f(x, axis=(0, 1, 2)) for f in (np.mean, np.std))
    scales = {
        "[0, 255]": 255 * x,
        "[-1, 1]": 2 * x - 1,
        "mean 0 and deviation 1 in each channel": (x - mean) / np.maximum(std, 1e-3),
    }
    others = {name: ~judge(setting, few, z).fooled for name, z in scales.items()}
    name, right = max(others.items(), key=lambda item: item[1].mean())
    if right.mean() > accuracy + max(0.1, 3 * np.sqrt(0.25 / len(few))):
        return (
            f"the model is right on {right.mean():.0%} of the images if their pixels are scaled to "
            f"{name}, and on {accuracy:.0%} as they are, in [0, 1]: put that scaling inside the "
            "model"
        )
    return None


def _random(setting, few, clean):
    setting = dataclasses.replace(setting, draws=1, vote=False)
    other = dataclasses.replace(setting, key=jax.random.fold_in(setting.key, 1))
    if _differ(_outputs(other, few, clean), _outputs(setting, few, clean)):
        wrap = "" if isinstance(setting.model, Randomized) else "wrap it in attacks.Randomized and "
        return (
            f"the model's output is random: the same images gave another one; {wrap}attack the "
            "mean over draws (Randomized(function, eot=20), the field eot of PGD and APGD, or "
            "AutoAttack version 'rand')"
        )
    return None


def _outputs(setting, few, clean):
    """The logits of the first images, or whatever a model without logits returns."""
    some = few[np.arange(min(len(few), SIDE_BY_SIDE))]
    if clean.logits is not None:
        return judge(setting, some).logits
    rows = {"image": some.image, "index": some.index}
    return over_tiles(_output_one, (setting.model, setting.key), rows, setting.batch_size)


def _output_one(model, key, row):
    return redraw(one_example(model), jax.random.fold_in(key, row["index"]))(row["image"])


def _batch(setting, few, clean):
    """Whether an image's output depends on the images beside it, or on its place among them."""
    if isinstance(setting.model, Randomized):
        return None
    some = few.image[:SIDE_BY_SIDE]

    def beside(others):
        """One program for all others, so that its rounding is the same in any precision."""
        output = _together(setting.model, np.concatenate([some, others]))
        output = output if clean.logits is None else part(output, "logits", 0)
        return jax.tree.map(lambda a: a[: len(some)], output)

    together = beside(some)
    if _differ(together, beside(some.min() + some.max() - some)):
        return (
            "the output for an image depends on the images beside it, as with BatchNorm in train "
            "mode: evaluate with running statistics"
        )
    if _differ(together, _outputs(setting, few, clean), _rounding(setting.model, some)):
        return (
            "the output for an image depends on its place in the batch or on the batch's size, as "
            "with dropout in train mode: evaluate without it"
        )
    return None


@jax.jit
def _together(model, images):
    return model(images)


def _rounding(model, images) -> float:
    """How far apart the outputs of two programs may be, relative to the largest."""
    few_bits = re.search(r"\b(bf16|f16|f8\w*)\[", str(_together.trace(model, images).jaxpr))
    if jax.default_backend() != "cpu":  # which multiplies float32 in fewer bits
        return 0.1
    return 1e-3 if few_bits is None else {"bf16": 0.1, "f16": 0.02}.get(few_bits[1], 0.5)


def _differ(a: Any, b: Any, tolerance: float = 1e-3) -> bool:
    """Whether any array of two outputs differs by more than this share of its largest number."""

    def far(a, b):
        a, b = (np.nan_to_num(np.asarray(leaf, np.float32), posinf=0, neginf=0) for leaf in (a, b))
        return np.abs(a - b).max() > tolerance * max(np.abs(b).max(), 1e-6)

    return any(jax.tree.leaves(jax.tree.map(far, a, b)))


def _constant(examples, clean):
    """Whether the model nearly always predicts one class, the others less than half their share."""
    label, prediction = examples.label, clean.prediction
    if clean.logits is None or not are_classes(label):
        return None
    classes, counts = np.unique(prediction, return_counts=True)
    most = counts.argmax()
    share, other = counts[most] / len(label), np.mean(label != classes[most])
    if len(label) < LEAST or share < CONSTANT or 1 - share > other / 2 or not other:
        return None
    return (
        f"one class predicted {'everywhere' if share == 1 else 'nearly everywhere'}: class "
        f"{classes[most]} on {share:.1%} of the images, though {other:.1%} are of other classes: "
        "the accuracies say how often that class occurs; look at those per class, and at the "
        "balanced ones"
    )


def _slopes(setting, right, clean, threat):
    """Whether random steps beat the gradient of the margin, or the label's logit has none.

    In n dimensions a random step gains about a sqrt(n)-th of the gradient's, wherever the margin is
    smooth on the scale of the step, a quarter of the radius.
    """
    if threat is None or clean.logits is None or not are_classes(right.label) or not len(right):
        return
    some = right[np.arange(min(len(right), STEEP))]
    if some.image[0].size < DIRECTIONS or not 0 < float(radius(threat)) < np.inf:
        return
    shared = threat, setting.model, setting.key
    rows = some.rows() | {"target": None}
    misled, flat = over_tiles(_slope_one, shared, rows, setting.batch_size)
    fixed = (clean.logits == clean.logits[:1]).all(0)  # of a class that others are compared with
    flat, most = flat & ~fixed[some.label], max(MISLED * len(some), 2)
    if misled.sum() > most:
        yield (
            f"at {misled.mean():.0%} of the images a random step raises the margin more than a "
            "step along its gradient: the gradient leads nowhere (masked gradients); find the part "
            "that breaks it and attack through bpda with a smooth stand-in for that part, or with "
            "the mean gradient over noise (Randomized and eot), or without gradients (Square)"
        )
    if flat.sum() > most:
        yield (
            f"at {flat.mean():.0%} of the images the logit of the label does not change with the "
            "image, though others do: it saturates (clipping, a sigmoid, rounding), and attacks "
            "can only raise the others; return what goes into that part, or put bpda around it"
        )


def _slope_one(threat, model, key, row):
    threat, x = of_example(threat, row["position"]), row["image"]
    key = jax.random.fold_in(key, row["index"])
    logits_fn = redraw(averaged(one_example(model)), jax.random.fold_in(key, DIRECTIONS))

    def value(z):
        return margin(logits_fn(z), row["label"]).astype(x.dtype)

    def gain(direction):
        return value(threat.step(x, direction, radius(threat) / 4, x)) - start

    def of_chance(i):
        return gain(jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype))

    start, gradient = jax.value_and_grad(value)(x)
    luck = jnp.max(jax.vmap(of_chance)(jnp.arange(DIRECTIONS)))
    slack = 1e-3 * jnp.maximum(jnp.abs(start), 1e-6)  # rounding
    own = jax.grad(lambda z: float_logits(logits_fn(z))[row["label"]])(x)
    slopes = jnp.any(gradient != 0)
    return slopes & (luck > gain(gradient) + slack), slopes & jnp.all(own == 0)
