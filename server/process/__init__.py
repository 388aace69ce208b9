"""How the program speaks to who runs it: console, log, exit codes, environment."""
