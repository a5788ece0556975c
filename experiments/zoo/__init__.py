"""Twenty defences that are known to be broken, and ten sound networks, on 8x8 digits."""
