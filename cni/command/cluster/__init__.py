"""Joining a cluster, leaving it, and what it knows of its hosts."""
