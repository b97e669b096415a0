"""Keep what is still to be read: the part of dlt's state that belongs to this source."""
