"""Other model servers, each in an environment of its own, with the same model file and the same images."""
