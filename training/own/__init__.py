"""Models of one's own: an earlier model adapted to other slices, compared with others, or given another threshold."""
