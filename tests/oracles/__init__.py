"""Independent float64 NumPy implementations, written from the definitions: what the layers must equal."""
