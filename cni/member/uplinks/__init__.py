"""A host's uplinks: what there is of each, who answers behind it, which one is taken, and the routes by which it is."""
