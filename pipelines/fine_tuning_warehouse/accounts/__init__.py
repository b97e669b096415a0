"""Find the accounts to read: their hosts, credentials and labels.

All modules but `labels` load dlt, which takes half a second. Commands import them when they run, inside a function, so
that `ftw --help` does not wait for that.
"""
