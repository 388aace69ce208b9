"""``python -m client bench``: loads a server and tells how long callers wait."""
