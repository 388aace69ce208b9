"""The server from start to stop, and what an operator does before: examine the box, and tune to it."""
