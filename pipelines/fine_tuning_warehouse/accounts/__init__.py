"""Find the accounts to read: their hosts, credentials and labels."""
