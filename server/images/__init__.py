"""From the bytes of an image file to the pixels of the model."""
