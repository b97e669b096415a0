"""Talk to the host: requests, credentials, retries, listings and downloads."""
