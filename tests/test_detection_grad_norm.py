"""GradNorm against the gradient that it is the norm of."""

import jax
import jax.numpy as jnp
import numpy as np
from watched import IMAGES, LABELS, MODEL, OUTPUT

from robustjax.detection import GradNorm, scores


def test_it_is_the_norm_of_the_gradient():
    features = OUTPUT["features"][-1]
    kernel = jnp.zeros((features.shape[-1], OUTPUT["logits"].shape[-1]))

    def loss(kernel, f, z):
        return -jax.nn.log_softmax((z + f @ kernel) / 2).mean()

    slopes = jax.vmap(jax.grad(loss), (None, 0, 0))(kernel, features, OUTPUT["logits"])
    found = scores(GradNorm(2.0).fit(MODEL, IMAGES, LABELS), IMAGES, batch_size=16)
    np.testing.assert_allclose(found, np.abs(slopes).sum((1, 2)), rtol=1e-4)
