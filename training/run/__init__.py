"""One run of training: folder, splits, folds and results."""
