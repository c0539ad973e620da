"""The options of `k3seq train`: their names, types, defaults, ranges and help texts."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer

from k3seq.commands.options import AT_LEAST_0, AT_LEAST_1, OUTPUT, SHARE, Range, SkipBadLinesOption, option_name
from k3seq.errors import UsageError

BY_TASK: Any = None  # `with_defaults` fills it in
_DATA, _MODEL, _TRAINING = "Data", "Model", "Training"


def _option(help: str, panel: str, **more: Any) -> typer.models.OptionInfo:
    return typer.Option(help=help, rich_help_panel=panel, **more)


@dataclass(frozen=True)
class Options:
    """What `k3seq train` was asked for. A value of None keeps the default of the model or of the task."""

    task: Annotated[str | None, _option("Built-in task: arithmetic.", _DATA)] = None
    data: Annotated[str | None, _option("Training pairs: source TAB target, UTF-8.", _DATA, metavar="FILE")] = None
    dev: Annotated[str | None, _option("Held-out pairs, scored after every epoch.", _DATA, metavar="FILE")] = None
    tokens: Annotated[str, _option("Tokens: char, space, word or subword; SOURCE/TARGET where they differ.", _DATA)] = BY_TASK
    vocabulary_size: Annotated[int | None, _option("Maximum vocabulary size.", _DATA), AT_LEAST_1] = None
    limit: Annotated[int | None, _option("Number of pairs to read from --data.", _DATA), AT_LEAST_1] = None
    skip_bad_lines: SkipBadLinesOption = False
    max_val: Annotated[int, _option("Arithmetic: numbers lie in [1 - max_val, max_val).", _DATA), Range(2, 2**31)] = BY_TASK
    problems: Annotated[int, _option("Arithmetic: number of training problems.", _DATA), AT_LEAST_1] = BY_TASK

    model: Annotated[str, _option("Architecture: lstm, lstm-attention, transformer or sliding.", _MODEL)] = BY_TASK
    units: Annotated[int | None, _option("Units of the LSTM layers.", _MODEL), AT_LEAST_1] = None
    embed_dim: Annotated[int | None, _option("Size of a token embedding.", _MODEL), AT_LEAST_1] = None
    num_layers: Annotated[int | None, _option("Layers of the encoder, and of the decoder.", _MODEL), AT_LEAST_1] = None
    dense_dim: Annotated[int | None, _option("Units of the feed-forward layers.", _MODEL), AT_LEAST_1] = None
    num_heads: Annotated[int | None, _option("Attention heads.", _MODEL), AT_LEAST_1] = None
    dropout: Annotated[float | None, _option("Dropout rate in training.", _MODEL), SHARE] = None

    epochs: Annotated[int, _option("Passes over the training pairs.", _TRAINING), AT_LEAST_1] = BY_TASK
    batch_size: Annotated[int, _option("Pairs in a batch.", _TRAINING), AT_LEAST_1] = BY_TASK
    buckets: Annotated[int, _option("Maximum number of batch shapes; each is compiled once.", _TRAINING), AT_LEAST_1] = BY_TASK
    gradient_accumulation_steps: Annotated[
        int, _option("Parts that a batch is split into to save memory.", _TRAINING), AT_LEAST_1
    ] = 1
    learning_rate: Annotated[
        float, _option("Peak learning rate, between a warm-up and a cosine decay.", _TRAINING), Range(above=0)
    ] = BY_TASK
    label_smoothing: Annotated[
        float, _option("Share of the target probability that is spread over the vocabulary.", _TRAINING), SHARE
    ] = 0.0
    clip_norm: Annotated[float, _option("Maximum global norm of the gradient.", _TRAINING), Range(above=0)] = 1.0
    seed: Annotated[
        int, _option("Seed of weights, order and problems, the same on every backend.", _TRAINING), Range(0, 2**63 - 1)
    ] = 0
    jit: Annotated[
        bool | None, typer.Option("--jit/--no-jit", help="Compile with XLA; default: Keras' choice.", rich_help_panel=_TRAINING)
    ] = None

    out: Annotated[str | None, _option("Run directory; default: a new runs/NAME-N.", OUTPUT, metavar="DIR")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.", rich_help_panel=OUTPUT)] = False
    log_steps: Annotated[int, _option("Number of first steps whose loss is printed.", OUTPUT), AT_LEAST_0] = 0
    samples: Annotated[int, _option("Number of decoded examples printed at the end.", OUTPUT), AT_LEAST_0] = 20


# These sizes solve more than 90 % of unseen arithmetic problems after about two minutes on two cores (docs/measurements.md).
ARITHMETIC = {
    "model": "lstm-attention",
    "tokens": "char",
    "epochs": 40,
    "batch_size": 64,
    "buckets": 1,
    "units": 128,
    "embed_dim": 32,
    "learning_rate": 2e-3,
    "max_val": 20,
    "problems": 8000,
}
TEXT = {"model": "lstm-attention", "tokens": "char", "epochs": 10, "batch_size": 64, "buckets": 4, "learning_rate": 1e-3}
SIZES = ("units", "embed_dim", "num_layers", "dense_dim", "num_heads", "dropout")


def with_defaults(options: Options) -> Options:
    """`options` with the defaults of the task filled in.

    Raises:
        UsageError: it is not clear what to train on.
    """
    if (options.task is None) == (options.data is None):
        raise UsageError("Expected either --task arithmetic or --data FILE.tsv")
    if options.task not in (None, "arithmetic"):
        raise UsageError(f"Expected --task arithmetic. Received: --task {options.task}")
    wrong = ("dev", "limit", "skip_bad_lines") if options.task else ("max_val", "problems")
    if any(getattr(options, name) not in (None, False) for name in wrong):
        names = ", ".join(map(option_name, wrong))
        raise UsageError(f"Expected {names} only with {'--data' if options.task else '--task arithmetic'}")
    defaults = ARITHMETIC if options.task else TEXT
    filled = replace(options, **{name: value for name, value in defaults.items() if getattr(options, name) is None})
    if options.task and filled.model not in ("lstm", "lstm-attention"):
        filled = replace(filled, units=options.units, embed_dim=options.embed_dim or ARITHMETIC["units"])
    return filled
