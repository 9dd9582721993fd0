"""The configuration by which a runtime has pods attached: as a file, in its place, and made for a node."""
