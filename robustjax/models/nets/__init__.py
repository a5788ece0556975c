"""Architectures, and the layers and blocks they are made of."""
