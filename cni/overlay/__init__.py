"""VXLAN: who the other nodes are, and what is programmed for them."""
