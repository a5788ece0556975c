"""AdaNet: what it asks of the network."""

import pytest

from robustjax.training import LBGAT, TRADES, AdaNet, Free


@pytest.mark.parametrize("inner", [TRADES(), Free(), LBGAT("cnn")])
def test_adanet_asks_for_adaptive_normalisation_and_nothing_else(inner):
    method = AdaNet(inner)
    assert method.model == inner.model | {"adaptive_norm": True}
    assert method.craft_cost == inner.craft_cost and method.loss_cost == inner.loss_cost
