"""The Open Inference Protocol (version 2): tensors of images in, tensors of judgements out, over gRPC and HTTP."""
