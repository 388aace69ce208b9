"""``python -m gateway listen``: settings, and the life of the process."""
