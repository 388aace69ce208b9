"""The metrics as Prometheus reads them, on a port of their own. Imported only when they are switched on."""
