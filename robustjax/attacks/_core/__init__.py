"""Shared by all attacks: state machines, success, ensembles, models with randomness."""
