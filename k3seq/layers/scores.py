"""Scores of queries against keys, as pure functions."""

from keras import ops


def luong_score(query, keys):
    """Dot products (Luong et al. 2015, https://arxiv.org/abs/1508.04025, "dot"; "general" when keys were projected before).

    Args:
        query: (b, t, d). keys: (b, s, d).

    Returns:
        (b, t, s).
    """
    return ops.matmul(query, ops.transpose(keys, (0, 2, 1)))
