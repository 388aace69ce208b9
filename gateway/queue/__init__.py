"""The queue on disk: what arrives, what waits, what is on its way out; it survives a stop at any moment."""
