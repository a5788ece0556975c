"""Train, attack, evaluate and detect adversarial examples in JAX."""
