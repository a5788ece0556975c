"""Networks trained in PyTorch, read from the names and shapes of their weights."""
