"""The work of each command of `k3seq`: `run(...)` shows it and returns what `--json` writes."""
