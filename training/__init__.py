"""Making a model: synthetic slices, data, training, evaluation and its reports."""
