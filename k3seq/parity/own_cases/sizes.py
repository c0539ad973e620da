"""The sizes and inputs that the cases share."""

import numpy as np

from k3seq.parity.case import Spec

# Few different sizes, because JAX compiles every new shape.
B, S, T, D, V = 3, 5, 4, 6, 20
LENGTHS = np.array([5, 1, 3], "int32")
EMPTY = np.array([0, 5, 2], "int32")  # one row has no steps
MASK = np.arange(S)[None, :] < LENGTHS[:, None]
X, STEPS, STATE = Spec((B, S, D)), Spec((B, T, D)), Spec((B, D))
TOKENS, TARGET = Spec((B, S), "int32", 1, V), Spec((B, T), "int32", 1, V)
WEIGHT = (np.arange(T)[None, :] < np.array([[4], [2], [3]])).astype("float32")
