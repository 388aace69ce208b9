"""Who may talk to the server, and how nobody else listens: TLS, certificates, tokens, roles and limits."""
