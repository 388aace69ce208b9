"""What a conversion of well-known networks takes, and how close it comes."""
