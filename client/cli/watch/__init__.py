"""``python -m client --watch``: judges what arrives in a folder."""
