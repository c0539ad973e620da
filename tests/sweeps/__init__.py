"""Functions that the workers of `test_api_sweep.py` call on each backend."""
