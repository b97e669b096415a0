"""Read the jobs of an account, and what the selected resources still need of each."""
