"""What happened to pixels before a model saw them: what its graph, its answers, or its author's answers show."""
