"""The parts of `make crash-test`: each enumerates something that can go wrong, and counts it."""
