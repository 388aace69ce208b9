"""Results on their way to archives, again and again until they are there or given up."""
