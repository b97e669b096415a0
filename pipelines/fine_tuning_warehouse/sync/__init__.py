"""Run a sync: the one way for the command, for schedulers and for Python."""
