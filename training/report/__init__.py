"""Tables, plots, pages and the model card of a run."""
