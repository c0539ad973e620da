"""Independent float64 NumPy implementations, written from the definitions, to compare the layers with."""
