"""The loop of a recurrence that runs eagerly: what the three `unroll`s share."""

from keras import ops, tree


def eager_loop(step, going, carry, blank, length, slices, whole):
    """Steps in Python until `going(carry)` is false or `length` steps are done; arguments and results as in `unroll`."""
    length = None if length is None else int(length)
    rows = [] if slices is None or not length else [ops.unstack(leaf, length, axis=0) for leaf in tree.flatten(slices)]
    steps, time = [], 0
    while (length is None or time < length) and bool(going(carry)):
        now = None if slices is None else tree.pack_sequence_as(slices, [row[time] for row in rows])
        carry, output = step(ops.convert_to_tensor(time, "int32"), now, carry)
        steps.append(tree.flatten(output))
        time += 1
    blanks = tree.flatten(blank)
    missing = length - time if whole and length is not None else 0
    if steps or missing:
        columns = zip(*steps, strict=True) if steps else [()] * len(blanks)
        stacked = [ops.stack([*column, *[zero] * missing]) for column, zero in zip(columns, blanks, strict=True)]
    else:
        stacked = [ops.zeros((0, *zero.shape), zero.dtype) for zero in blanks]
    return carry, tree.pack_sequence_as(blank, stacked)
