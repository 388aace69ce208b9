"""From a complete study to its results: asked of the server, written down once."""
