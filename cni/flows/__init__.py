"""Who talked to whom on this node: recorded, kept, shown."""
