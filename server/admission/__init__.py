"""Where requests of all transports begin and end: gate, places, memory, errors, outcomes, and the way to the core."""
