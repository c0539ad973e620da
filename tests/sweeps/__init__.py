"""Random calls of the public API, the same on every backend: what `test_api_sweep.py` asks of each."""
