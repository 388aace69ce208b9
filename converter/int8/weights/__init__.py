"""What is done to the weights of a float graph, so that integers lose little of it: equalised, and rounded together."""
