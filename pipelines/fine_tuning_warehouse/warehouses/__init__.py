"""Everything that depends on the kind of warehouse."""
