"""How the program speaks to who runs it: console, log, exit codes, environment; and how what it starts ends."""
