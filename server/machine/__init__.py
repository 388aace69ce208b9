"""What this box is, and what it gives: processors, memory, folders."""
