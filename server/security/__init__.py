"""Who may talk to the server, and how nobody else listens: TLS, certificates, names of clients."""
