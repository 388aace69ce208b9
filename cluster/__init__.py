"""More than one machine by way of Ray: archives, and the server on Ray Serve. Nothing else of the project needs Ray."""
