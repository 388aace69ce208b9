"""One server process, or several on one box; and gRPC's two kinds of server over the same workers."""
