"""What `agent-cni show` prints and draws of a node."""
