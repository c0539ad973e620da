"""Which backends there are, and processes on them: the matrix file, workers, and the check before Keras is imported.

Nothing here imports keras or a framework.
"""
