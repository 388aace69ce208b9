"""What a model does with images that nobody should send it."""
