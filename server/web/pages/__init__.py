"""What people see in a browser: files that ask nobody but this server, each with a policy that allows nothing else."""
