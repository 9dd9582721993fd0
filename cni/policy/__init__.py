"""Isolation: who may talk to a pod and whom it may reach, and the nft rules that hold it to that."""
