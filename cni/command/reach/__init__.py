"""Whether one end reaches another: what is asked of the node, and how it is told."""
