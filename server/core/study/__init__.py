"""Studies: which series of one is judged, in what order its slices lie, and one answer for all of them."""
