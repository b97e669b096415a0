"""Convert records of the API to Arrow tables."""
