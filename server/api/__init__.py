"""gRPC's face of the core."""
