"""The API between client and server, and the project's version, which both of them reach here."""

__version__ = "0.1.0"
