"""What a node has of the suite, and how it gets it."""
