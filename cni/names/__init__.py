"""Names of pods: what a configuration and a runtime say of them, and the server that answers them."""
