"""What Ray costs and gives, measured: for docs/ray.md."""
