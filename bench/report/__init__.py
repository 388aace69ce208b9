"""Pages, tables and plots of measurements."""
