"""Who may call, and how much: tokens, certificates' names, roles and limits. No transport here."""
