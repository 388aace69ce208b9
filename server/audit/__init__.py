"""What was judged and refused, in a file whose alterations show: a JSON line an image, each tied to the one before."""
