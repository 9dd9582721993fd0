"""What the hosts of a cluster know of each other, and the store they know it from."""
