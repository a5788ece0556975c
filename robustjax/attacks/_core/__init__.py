"""What all attacks share: state machines, success, ensembles, models with randomness."""
