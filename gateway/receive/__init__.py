"""What senders see: associations, C-ECHO and C-STORE, each instance on disk before it is answered."""
