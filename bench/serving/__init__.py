"""Measurements of server and client."""
