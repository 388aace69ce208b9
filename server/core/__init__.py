"""The core without a transport: from the bytes of an image to the decision."""
