"""How unlike all that a model knows an image is: a second output of its graph, fitted on slices."""
