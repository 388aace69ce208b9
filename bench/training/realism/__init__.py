"""The distribution that synthetic slices are drawn from, measured and put beside published figures."""
