"""`zero_gradient`: on how many images an attack cannot move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._engine.inputs import check_attack, check_request
from robustjax.attacks._engine.layout import layout_of
from robustjax.attacks._engine.ledger import Ledger
from robustjax.attacks._engine.setting import Setting
from robustjax.checks import checked, in_body
from robustjax.evaluation import diagnostics
from robustjax.evaluation.attacked import clean_of


@checked(attack=in_body)
def zero_gradient(
    logits_fn: Callable,
    images: Any,
    labels: Any,
    attack: diagnostics.FollowsGradient,
    key: jax.Array,
    *,
    indices: Any = None,
    batch_size: int | None = None,
    success: Success = fooled,
) -> float:
    """The fraction of the images that the model gets right at which an attack has no gradient.

    Exactly zero, at the clean image: there sign(0) = 0 and an attack without a random start does
    not move at all. 0 where the model gets nothing right.

    Args:
      attack: one objective of a gradient attack; `PGD()` is the plain cross-entropy.
      logits_fn, images, labels, key, indices, batch_size, success: as for `evaluate`.

    Logits this large saturate the softmax:

    >>> images, labels = np.float32([0.75, 0.25]).reshape(1, 1, 1, 2), [0]
    >>> def model(images):
    ...     return 1e4 * images[:, 0, 0]
    >>> attack, key = rj.attacks.PGD(), jax.random.key(0)
    >>> rj.evaluation.zero_gradient(model, images, labels, attack, key)
    1.0
    """
    check_attack(attack)
    if not isinstance(attack, diagnostics.FollowsGradient):
        raise ValueError(f"{type(attack).__name__} follows no gradient; give one such as PGD()")
    layout = layout_of(images)
    attack, images, logits_fn = layout.attack(attack), layout.pack(images), layout.model(logits_fn)
    model, key, data, batch_size = check_request(
        logits_fn, key, images, labels, indices, batch_size, None, attack, success
    )
    setting = Setting(model, key, success, batch_size, Ledger())
    right = data[~clean_of(setting, data).fooled]
    return float(diagnostics.no_gradient(attack, setting, right).mean()) if len(right) else 0.0
