"""The member: a daemon that keeps this host and the others of its cluster knowing each other."""
