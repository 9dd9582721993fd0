"""agent-cni: CNI plugins for agents and workloads. Importing this package does nothing."""

__version__ = "0.1.0"
