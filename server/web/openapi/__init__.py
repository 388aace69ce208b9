"""``GET /openapi.json``: the API of HTTP as programs read it."""
