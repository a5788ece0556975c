"""Attacks that ask for outputs and take no derivative."""
