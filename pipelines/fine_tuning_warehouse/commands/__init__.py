"""The commands of `ftw`, a module each. Whatever costs time to import is imported where it is needed."""
