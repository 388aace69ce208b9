"""The slices of one study on a stream, and one answer for all of them."""
