"""The server: a gRPC face over verified ONNX models."""
