"""Changes of an ONNX graph that keep what it computes."""
