"""The sliding-context model reads arithmetic problems from sharded records; its window keeps the earlier tokens.

Run it as `KERAS_BACKEND=jax python examples/sliding_context.py --logdir logs`, with any backend. 100 steps are the 5 epochs
of the source, quantapix' "Custom Keras Layers Without The Drawbacks", which printed 2.6308, 2.1488, 1.8967, 1.7398, 1.5818.
"""

import argparse
import importlib.util
import tempfile

import keras
from keras import ops

from k3seq.data import read_shards, shard_paths, write_shards
from k3seq.data.arithmetic import decode, problems, ragged_batches, to_example
from k3seq.models.sliding_arithmetic import SlidingArithmetic, dense_batch
from k3seq.random import initialize

PROBLEMS, BATCH, SHARDS = 100, 5, 2


def batches(records, model, seed):
    """The batches (x, y) of all epochs: the same problems in the same order, with the same digits of their results blanked.

    In the source, where TensorFlow draws the blanks with a global seed, they are the same in each epoch too. All arrays are as
    wide as the model's windows, so that the step is compiled only once.
    """
    while True:
        for x, _ in ragged_batches(records, BATCH, seed, drop_remainder=True):
            yield dense_batch(x, model.width_enc, model.width_dec)


def tensorboard(folder):
    """The callback that logs to `folder`, if the packages that write the logs are installed."""
    missing = [name for name in ("tensorboard", "tensorflow") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"No logs in {folder}: Keras writes them with {' and '.join(missing)}. Try: pip install {' '.join(missing)}")
        return []
    return [keras.callbacks.TensorBoard(folder, write_graph=False)]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100, help="training steps; above 20, rounded up to whole epochs of 20")
    parser.add_argument("--max-val", type=int, default=100, help="numbers are in [1 - max_val, max_val)")
    parser.add_argument("--seed", type=int, default=3, help="seed of problems, blanks and weights")
    parser.add_argument("--out", help="folder for the records; a temporary one otherwise")
    parser.add_argument("--logdir", help="folder for TensorBoard's logs")
    jit = "compile the step with XLA (torch: torch.compile), or run it op by op; default: that of the backend"
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, help=jit)
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"Expected --steps of at least 1. Received: --steps {options.steps}")

    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or scratch
        write_shards(map(to_example, problems(PROBLEMS, options.max_val, options.seed)), folder, "arithmetic", SHARDS)
        records = read_shards(shard_paths(folder, "arithmetic"))
        first = ":".join(decode(records[0][field]) for field in ("defs", "op", "res"))
        print(f"{len(records)} problems in {SHARDS} shards, the first one {first}")

        model = initialize(SlidingArithmetic(batch_size=BATCH), options.seed)
        trainable = sum(weight.size for weight in map(ops.convert_to_numpy, model.trainable_variables))
        print(f"{model.count_params():,} parameters, {trainable:,} trainable (the others are the window)")
        model.compile("adam", jit_compile="auto" if options.jit is None else options.jit, run_eagerly=options.jit is False)
        epoch_steps = PROBLEMS // BATCH
        history = model.fit(
            batches(records, model, options.seed),
            steps_per_epoch=min(options.steps, epoch_steps),
            epochs=-(-options.steps // epoch_steps),
            shuffle=False,  # each row of a batch continues the same row of the batch before
            callbacks=tensorboard(options.logdir) if options.logdir else [],
            verbose=0,
        ).history
    print("loss of each epoch: " + ", ".join(f"{loss:.4f}" for loss in history["loss"]))
    window = decode(ops.convert_to_numpy(model.frames.prev)[0])
    print(f"window of row 0: {window!r}")
    return {"parameters": model.count_params(), "trainable": trainable, "losses": history["loss"], "window": window}


if __name__ == "__main__":
    main()
