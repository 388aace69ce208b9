"""gRPC as a transport, for any of its services: calls, streams, and addresses to listen on."""
