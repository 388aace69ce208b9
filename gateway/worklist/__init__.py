"""Which study to look at first: the answers of a queue in the order of their urgency, as CSV, JSON and a page."""
