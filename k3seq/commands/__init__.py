"""The commands of `k3seq`: in each module a function of the same name shows the result and returns what `--json` writes.

`invocation`, `options`, `process` and `consoles` hold what the commands share.
"""
