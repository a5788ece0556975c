"""Networks of other libraries of JAX, called as ours are."""
