"""The command line: what ``python -m client`` does."""
