"""Curriculum adversarial training: slices of the batch, and when the strength grows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SIZE, crafted, flat_net, keys

from robustjax.attacks import PGD
from robustjax.attacks.starts import Zero
from robustjax.attacks.steps import Unclipped
from robustjax.parallel import AXIS
from robustjax.threats import Linf
from robustjax.training import AWP, Curriculum

BALL = Linf(0.05)


@pytest.mark.parametrize(
    ("k", "size", "want"),
    [
        (0, 8, [0] * 8),
        (1, 8, [0] * 4 + [1] * 4),
        (2, 8, [0, 0, 1, 1, 2, 2, 2, 2]),
        (3, 8, [0, 0, 1, 1, 2, 2, 3, 3]),
        (7, 4, [0, 1, 2, 3]),
    ],
)
def test_a_batch_is_cut_into_slices_and_the_last_takes_the_rest(k, size, want):
    assert Curriculum(strength=k).steps(jnp.arange(size), size).tolist() == want


def test_slices_are_of_the_whole_batch():
    method, given = Curriculum(PGD(BALL), "running", strength=3), flat_net(Curriculum())
    params, net, batch = given
    halves = jax.tree.map(lambda a: a.reshape(2, -1, *a.shape[1:]), (batch, keys()))
    found = jax.vmap(lambda b, k: method.perturb(net, params, b, k).x_adv, axis_name=AXIS)(*halves)
    np.testing.assert_array_equal(found.reshape(batch.image.shape), crafted(method, given).x_adv)


def test_without_strength_it_is_natural_training_and_slice_zero_always_is():
    given = flat_net(Curriculum())
    image = given[2].image
    np.testing.assert_array_equal(crafted(Curriculum(PGD(BALL)), given).x_adv, image)
    found = crafted(Curriculum(PGD(BALL), strength=3), given).x_adv
    clean = (found == image).all((1, 2, 3))
    assert clean.tolist() == [True] * (SIZE // 4) + [False] * (3 * SIZE // 4)


def test_a_slice_of_one_step_is_fgsm_from_a_random_start():
    """Steps of 2 eps and more lead to a corner, or to the box, from anywhere."""
    given = _, _, batch = flat_net(Curriculum())
    found = np.asarray(crafted(Curriculum(PGD(BALL), strength=1), given).x_adv)[SIZE // 2 :]
    x = np.asarray(batch.image)[SIZE // 2 :]
    low, high = np.maximum(x - BALL.eps, 0), np.minimum(x + BALL.eps, 1)
    assert np.minimum(np.abs(found - low), np.abs(found - high)).max() < 1e-6


def test_steps_of_a_slice_are_of_twice_eps_over_their_number_and_up_to_ten_over_it_longer():
    """Where nothing clips, all steps together go 2 eps u, u ~ U(1, 10 / j), one u an image."""
    params, net, batch = flat_net(Curriculum())
    batch = batch.replace(image=0.3 + 0.4 * batch.image)
    attack = PGD(Linf(0.002), start=Zero(), rule=Unclipped())
    found = crafted(Curriculum(attack, strength=3), (params, net, batch)).x_adv
    far = np.abs(found - batch.image).max((1, 2, 3)).reshape(4, -1) / 0.004
    for j in (1, 2, 3):
        assert (far[j] >= 1 - 1e-4).all() and (far[j] <= 10 / j + 1e-4).all()
        assert far[j].max() > 0.5 * (1 + 10 / j) and len(np.unique(far[j])) == SIZE // 4


def test_the_curriculum_goes_on_when_the_score_has_not_risen_for_long():
    method = Curriculum(patience=2, strongest=2)
    scores = [0.5, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0]
    want = [(0, "continue")] * 3 + [(1, "rollback")] + [(1, "continue")] * 2
    want += [(2, "rollback")] + [(2, "continue")] * 3
    for n, (strength, action) in enumerate(want, 1):
        found = method.control(scores[:n])
        assert (found[0].strength, found[1]) == (strength, action), n
    assert AWP(method).control(scores[:4])[0].inner.strength == 1
    assert jax.tree.structure(method.control(scores)[0]) == jax.tree.structure(method)
