"""Sidecar interception: what a configuration and a pod's annotations ask for, and the rules that do it."""
