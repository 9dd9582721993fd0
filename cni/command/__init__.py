"""The operator's command, `agent-cni`: one module for each thing that can be looked at."""
