"""From a folder on disk to a verified model that answers."""
