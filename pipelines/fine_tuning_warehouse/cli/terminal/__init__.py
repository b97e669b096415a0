"""What a command prints: results, tables, lines of a log, progress."""
