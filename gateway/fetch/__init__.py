"""What of a study is missing here, asked of the archive and fetched: C-FIND and C-MOVE."""
