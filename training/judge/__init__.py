"""The command ``evaluate``: a model or a server predicts a folder of slices, and its predictions are evaluated."""
