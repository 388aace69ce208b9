"""What a data set holds before a network has seen it."""
