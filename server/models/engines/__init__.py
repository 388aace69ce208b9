"""What runs models: ONNX Runtime with its cache of optimised graphs, or OpenVINO, behind one interface."""
