"""Many images on a stream: what is sent when, and the threads or tasks that do it."""
