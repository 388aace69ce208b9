"""The worklist that the gateway writes to a file: which study to look at first, as a page, as JSON and as CSV."""
