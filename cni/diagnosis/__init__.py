"""What is wrong on a node, as values: causes before their symptoms, said once for all pods, and how bad it is."""
