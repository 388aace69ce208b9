"""Certificates, and why a connection with TLS cannot be made."""
