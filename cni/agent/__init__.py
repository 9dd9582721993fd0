"""The node agent: a warm process that serves the calls the plugins' launchers hand over."""
