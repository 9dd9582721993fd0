"""Addresses for pods: our own leases, or a delegate's."""
