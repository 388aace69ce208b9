"""A folder of slices, judged by a model or a server."""
