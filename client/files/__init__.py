"""Files on this side: which a folder holds, what they begin and end with, and their order."""
