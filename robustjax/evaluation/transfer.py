"""Transfer: adversarial images crafted on one model, judged by the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._engine.craft import craft
from robustjax.attacks._engine.inputs import check_attack, check_request
from robustjax.attacks._engine.judgement import judge
from robustjax.attacks._engine.layout import layout_of
from robustjax.attacks._engine.ledger import Ledger, warn_of_nan
from robustjax.attacks._engine.setting import Setting
from robustjax.checks import checked, in_body
from robustjax.evaluation.report import describe
from robustjax.evaluation.setting import setting_of
from robustjax.evaluation.worst_case import stderr
from robustjax.typing import Attack


class Rate(NamedTuple):
    """A fraction of `n` images, with its binomial standard error; both are None if n = 0."""

    value: float | None
    stderr: float | None
    n: int


@dataclasses.dataclass(frozen=True)
class Transfer:
    """The result of `transfer`; a matrix is {source: {target: entry}}.

    Attributes:
      n: the number of images.
      clean: {model: accuracy on the clean images}, sources and targets.
      accuracy: of the target on the images crafted on the source, over all n.
      success: the fraction at which the attack wins on the target, over the images that source and
        target both classify correctly when clean.
      attack: its configuration.
      setting: as in `Report.setting`, with the weights of every model.
      fooled: {source: {target: (n,) bool}}, where the attack wins on the target.
      adversarial: {source: (n, H, W, C)}.

    >>> images, labels = np.float32([0.75, 0.25]).reshape(1, 1, 1, 2), [0]
    >>> def model(images):
    ...     return images[:, 0, 0]
    >>> one, attack, key = {"a": model}, rj.attacks.FGSM(rj.threats.Linf(0.3)), jax.random.key(0)
    >>> rj.evaluation.transfer(attack, one, one, images, labels, key).to_json()["success"]
    {'a': {'a': {'value': 1.0, 'stderr': 0.0, 'n': 1}}}
    """

    n: int
    clean: dict[str, float]
    accuracy: dict[str, dict[str, Rate]]
    success: dict[str, dict[str, Rate]]
    attack: Any = dataclasses.field(repr=False)
    setting: dict[str, Any] = dataclasses.field(repr=False)
    fooled: dict[str, dict[str, np.ndarray]] = dataclasses.field(repr=False)
    adversarial: dict[str, np.ndarray] = dataclasses.field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and numbers; images and per-example verdicts stay out."""

        def plain(matrix):
            return {s: {t: rate._asdict() for t, rate in row.items()} for s, row in matrix.items()}

        return {
            "n": self.n,
            "clean": self.clean,
            "accuracy": plain(self.accuracy),
            "success": plain(self.success),
            "attack": self.attack,
            "setting": self.setting,
        }


@checked(attack=in_body)
def transfer(
    attack: Attack,
    sources: Mapping[str, Callable],
    targets: Mapping[str, Callable],
    images: Any,
    labels: Any,
    key: jax.Array,
    *,
    indices: Any = None,
    batch_size: int | None = None,
    success: Success = fooled,
    progress: bool = False,
) -> Transfer:
    """Craft images on every source and judge them on every target.

    All images are attacked, including those that the source misclassifies. Two numbers are in use,
    and both are reported: the target's accuracy, which includes its clean mistakes, and the success
    rate among the images that both models classify correctly when clean, where every win is a
    transfer. Where source and target are the same model these are white-box numbers. An image
    outside the attack's threat model (a minimum-norm attack may return one) is replaced by the
    clean one.

    Args:
      attack: as for `perturb`; the key of image i is the same for all sources.
      sources, targets: models by name, each a batch (B, H, W, C) -> (B, K), best a
        `jax.tree_util.Partial`. A name in both must be one model.
      images, labels, key, indices, batch_size: as for `evaluate`.
      success: (output, label) -> bool: the model is wrong there.
      progress: show progress bars.

    Raises:
      ValueError: no models, one name for two models, or as `perturb`.

    References: Papernot et al., "Transferability in machine learning", 2016.

    Guarantees:
      Neither the order of the models nor `batch_size` changes a number.

    >>> images, labels = np.float32([0.75, 0.25, 0.25, 0.5]).reshape(2, 1, 1, 2), [0, 1]
    >>> def model(images):  # two pixels, two logits
    ...     return images[:, 0, 0]
    >>> def other(images):
    ...     return images[:, 0, 0] ** 2
    >>> attack, key = rj.attacks.FGSM(rj.threats.Linf(0.2)), jax.random.key(0)
    >>> found = rj.evaluation.transfer(attack, {"a": model}, {"b": other}, images, labels, key)
    >>> found.clean["b"], found.accuracy["a"]["b"].value
    (1.0, 0.5)
    """
    check_attack(attack)
    if not sources or not targets:
        raise ValueError("transfer needs at least one source and one target")
    twice = [name for name in sources if targets.get(name, sources[name]) is not sources[name]]
    if twice:
        raise ValueError(f"{twice[0]!r} names one model as source, another one as target")
    layout = layout_of(images)
    attack, images = layout.attack(attack), layout.pack(images)
    requests = {
        name: check_request(
            layout.model(logits_fn), key, images, labels, indices, batch_size, None, attack, success
        )
        for name, logits_fn in {**sources, **targets}.items()
    }
    settings = {
        name: Setting(model, typed, success, size, Ledger())
        for name, (model, typed, _, size) in requests.items()
    }
    _, typed, data, _ = next(iter(requests.values()))
    right = {name: ~judge(setting, data).won for name, setting in settings.items()}
    adversarial = {}
    for source in sources:
        made = craft(attack, settings[source], data, source if progress else None)
        warn_of_nan(settings[source].ledger)
        inside = made.inside.reshape(-1, 1, 1, 1)
        adversarial[source] = np.where(inside, made.image, data.image)
    won = {
        source: {target: judge(settings[target], data, images).won for target in targets}
        for source, images in adversarial.items()
    }

    def matrix(entry: Callable) -> dict[str, dict[str, Any]]:
        return {s: {t: entry(won[s][t], right[s] & right[t]) for t in targets} for s in sources}

    return Transfer(
        n=len(data),
        clean={name: float(mask.mean()) for name, mask in right.items()},
        accuracy=matrix(lambda won, _: _rate(~won)),
        success=matrix(lambda won, both: _rate(won[both])),
        attack=describe(attack),
        setting=setting_of({name: by.model for name, by in settings.items()}, typed, data),
        fooled=won,
        adversarial={source: layout.unpack(images) for source, images in adversarial.items()},
    )


def _rate(mask: np.ndarray) -> Rate:
    """The fraction of True with its standard error."""
    if not len(mask):
        return Rate(None, None, 0)
    value = float(mask.mean())
    return Rate(value, stderr(value, len(mask)), len(mask))
