"""`k3seq train`: a seq2seq model from text pairs or arithmetic problems to a run directory."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from k3seq.errors import DataError, K3SeqError, UsageError
from k3seq.report.record import versions


@dataclass(frozen=True)
class Options:
    """What `k3seq train` was asked for; a size of None keeps the default of the model or of the task."""

    task: str | None = None
    data: str | None = None
    dev: str | None = None
    out: str | None = None
    overwrite: bool = False
    model: str | None = None
    tokens: str | None = None
    vocabulary_size: int | None = None
    limit: int | None = None
    skip_bad_lines: bool = False
    epochs: int | None = None
    batch_size: int | None = None
    buckets: int | None = None
    units: int | None = None
    embed_dim: int | None = None
    num_layers: int | None = None
    dense_dim: int | None = None
    num_heads: int | None = None
    dropout: float | None = None
    learning_rate: float | None = None
    label_smoothing: float = 0.0
    clip_norm: float = 1.0
    gradient_accumulation_steps: int = 1
    seed: int = 0
    jit: bool | None = None
    log_steps: int = 0
    samples: int = 20
    max_val: int | None = None
    problems: int | None = None


# The sizes that bring arithmetic over 90 % of unseen problems in about two minutes on two cores (docs/measurements.md).
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
HELD_OUT = 500
TEXT = {"model": "lstm-attention", "tokens": "char", "epochs": 10, "batch_size": 64, "buckets": 4, "learning_rate": 1e-3}
SIZES = ("units", "embed_dim", "num_layers", "dense_dim", "num_heads", "dropout")


def train(asked, console=None):
    """Trains as `asked` (from `with_defaults`): progress on stderr, decoded examples on stdout.

    Returns:
        The record of the run, a JSON-able dict.
    """
    console = console or Console()
    log = Console(stderr=True)
    directory = out_directory(asked)
    train, dev, skipped = pairs_of(asked)
    if skipped:
        log.print(f"skipped {sum(skipped.values())} bad lines: " + ", ".join(f"{n} {why}" for why, n in skipped.items()))

    import keras

    from k3seq.train.loop import epochs, evaluate

    trained, dev_batches, batches = prepare(asked, train, dev)
    model, backend = trained.model, keras.backend.backend()
    log.print(
        f"{asked.model} on {backend}: {model.count_params():,} parameters, {len(train):,} training pairs, "
        f"{len(dev):,} held out, {len(batches)} steps an epoch, jit={model.jit_compile}"
    )
    record = {"backend": backend, "versions": versions(), "options": asdict(asked), "parameters": model.count_params()}
    record |= {"training_pairs": len(train), "dev_pairs": len(dev), "skipped": dict(skipped), "jit": bool(model.jit_compile)}
    record |= {"first_steps": [], "epochs": [], "directory": str(directory)}
    trained.history = record
    columns = ["{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "{task.fields[loss]}"]
    columns = [TextColumn(column) if isinstance(column, str) else column for column in columns]
    best, started = None, time.perf_counter()
    with Progress(*columns, console=log, transient=True) as progress:
        bar = progress.add_task("compiling", total=len(batches), loss="")

        def on_step(step):
            if step.number <= asked.log_steps:
                record["first_steps"].append(step.logs["loss"])
                console.print(f"step {step.number} loss {step.logs['loss']:.4f}", highlight=False)
            progress.update(bar, advance=1, description="training", loss=f"loss {step.logs['loss']:.4f}")

        try:
            for epoch in epochs(model, batches, asked.epochs, on_step):
                row = epoch._asdict()
                if dev:
                    progress.update(bar, description="evaluating", total=len(dev), completed=0)
                    on_batch = lambda done: progress.update(bar, completed=done)  # noqa: E731
                    row |= {"dev_loss": evaluate(model, dev_batches), **dev_scores(trained, dev, asked.batch_size, on_batch)}
                record["epochs"].append(row)
                record["seconds"] = time.perf_counter() - started
                log.print(epoch_line(row), highlight=False)
                if best is None or not dev or row["error_rate"] <= best:
                    best = row.get("error_rate")
                    record["saved_epoch"] = epoch.number
                    trained.save(directory)
                else:
                    trained.save_history(directory)
                progress.reset(bar, total=len(batches), description="training", loss="")
        except KeyboardInterrupt:
            kept = f"{directory} holds epoch {record['saved_epoch']}" if "saved_epoch" in record else "nothing was saved"
            raise K3SeqError(f"interrupted after {len(record['epochs'])} of {asked.epochs} epochs; {kept}") from None
    from k3seq.inspect.pictures import draw_training, save_figure

    save_figure(draw_training(record["epochs"]), directory / "losses.png")
    show_samples(console, trained, dev or train, asked)
    log.print(f"saved epoch {record['saved_epoch']} to {directory}", highlight=False)
    return record


def with_defaults(options):
    """`options` with the defaults of the task filled in.

    Raises:
        UsageError: when it is not clear what to train on, or a number is out of range.
    """
    if (options.task is None) == (options.data is None):
        raise UsageError("Expected either --task arithmetic or --data FILE.tsv")
    if options.task not in (None, "arithmetic"):
        raise UsageError(f"Expected --task arithmetic. Received: --task {options.task}")
    if options.task is None and (options.max_val is not None or options.problems is not None):
        raise UsageError("Expected --max-val and --problems only with --task arithmetic")
    defaults = ARITHMETIC if options.task else TEXT
    filled = replace(options, **{name: value for name, value in defaults.items() if getattr(options, name) is None})
    if options.task and filled.model not in ("lstm", "lstm-attention"):
        filled = replace(filled, units=options.units, embed_dim=options.embed_dim or ARITHMETIC["units"])
    for name in ("epochs", "batch_size", "buckets", "limit", "problems", "vocabulary_size", "gradient_accumulation_steps"):
        value = getattr(filled, name)
        if value is not None and value < 1:
            raise UsageError(f"Expected --{name.replace('_', '-')} of at least 1. Received: {value}")
    if filled.learning_rate is None or not filled.learning_rate > 0:
        raise UsageError(f"Expected --learning-rate above 0. Received: {filled.learning_rate}")
    if not filled.clip_norm > 0:
        raise UsageError(f"Expected --clip-norm above 0. Received: {filled.clip_norm}")
    for name in ("label_smoothing", "dropout"):
        value = getattr(filled, name)
        if value is not None and not 0 <= value < 1:
            raise UsageError(f"Expected --{name.replace('_', '-')} in [0, 1). Received: {value}")
    return filled


def out_directory(options):
    """Where the run is written: `--out`, or a new `runs/NAME-N`."""
    if options.out is None:
        name = options.task or Path(options.data).stem
        taken = {path.name for path in Path("runs").glob(f"{name}-*")}
        return Path("runs") / next(f"{name}-{n}" for n in range(1, len(taken) + 2) if f"{name}-{n}" not in taken)
    directory = Path(options.out)
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"Expected --out to be a directory. Received: {directory}, a file")
    if (directory / "run.json").exists() and not options.overwrite:
        raise UsageError(f"Expected --out to be a new directory. Received: {directory}, which holds a run (or add --overwrite)")
    return directory


def pairs_of(options):
    """(training pairs, held-out pairs, skipped lines by reason)."""
    from k3seq.data import arithmetic
    from k3seq.data.pairs import Pairs, read_pairs

    if options.task:
        drawn = arithmetic.problems(options.problems + HELD_OUT, options.max_val, options.seed, distinct=True)
        train, dev = (arithmetic.pairs(part) for part in arithmetic.split(drawn, HELD_OUT, options.seed))
        return train, dev, {}
    on_error = "skip" if options.skip_bad_lines else "raise"
    train = read_pairs(options.data, on_error, options.limit)
    dev = read_pairs(options.dev, on_error) if options.dev else Pairs()
    if not train:
        raise DataError("Expected at least one pair. Received: none", options.data)
    skipped = dict(train.skipped)
    for why, count in dev.skipped.items():
        skipped[why] = skipped.get(why, 0) + count
    return list(train), list(dev), skipped


def prepare(options, train, dev):
    """(run with a compiled model, batches of the held-out pairs, batches of the training pairs)."""
    import keras

    from k3seq.data import tokenizers
    from k3seq.data.batches import Batches, encode_pairs
    from k3seq.models import registry
    from k3seq.pipeline import Pipeline
    from k3seq.random import initialize
    from k3seq.train.losses import TokenCrossentropy

    kinds = options.tokens.split("/")
    if len(kinds) > 2:
        raise UsageError(f"Expected --tokens KIND or SOURCE/TARGET. Received: {options.tokens}")
    source, target = (
        tokenizers.of_kind(name).fit([pair[side] for pair in train], vocabulary_size=options.vocabulary_size)
        for name, side in ((kinds[0], 0), (kinds[-1], 1))
    )
    examples = encode_pairs(train, source, target)
    widths = {"width_source": max(len(s) for s, _ in examples), "width_target": max(len(t) for _, t in examples) + 1}
    max_steps = max(widths["width_target"], 2)
    known = registry.sizes(options.model)
    chosen = {name: getattr(options, name) for name in SIZES}
    room = {"width_source": 2 * widths["width_source"], "width_target": 2 * max_steps, "max_steps": 4 * max(widths.values())}
    chosen |= {name: value for name, value in room.items() if name in known}
    model = registry.seq2seq(options.model, source.vocabulary_size, target.vocabulary_size, **chosen)
    initialize(model, options.seed)
    optimizer = keras.optimizers.Adam(options.learning_rate, global_clipnorm=options.clip_norm)
    batches = Batches(examples, options.batch_size, options.seed, buckets=options.buckets)
    steps = options.epochs * len(batches)
    optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, alpha=0.01, warmup_target=options.learning_rate, warmup_steps=min(200, steps // 10 + 1)
    )
    model.compile(
        optimizer,
        loss=TokenCrossentropy(options.label_smoothing),
        jit_compile="auto" if options.jit is None else options.jit,
    )
    model.step_options(gradient_accumulation_steps=options.gradient_accumulation_steps)
    dev_examples = encode_pairs(dev, source, target)
    dev_batches = (
        Batches(dev_examples, options.batch_size, options.seed, shuffle=False, buckets=options.buckets) if dev else None
    )
    return Pipeline(model, source, target, 2 * max_steps), dev_batches, batches


def dev_scores(trained, dev, batch_size, on_batch):
    """Error rate and sequence accuracy of greedy decoding on held-out pairs; several targets of a source count as any-of."""
    from k3seq.data.pairs import references
    from k3seq.metrics import score

    known = references(dev)
    results = trained.decode(list(known), batch_size, on_batch)
    cut = trained.target_tokenizer.cut
    scores = score([cut(line) for line in results], [[cut(line) for line in lines] for lines in known.values()])
    return {"error_rate": scores["error_rate"], "sequence_accuracy": scores["sequence_accuracy"]}


def epoch_line(row):
    """What an epoch gave, as one line."""
    rate = row["tokens"] / max(row["seconds"], 1e-9)
    parts = [f"epoch {row['number']}", f"loss {row['loss']:.4f}", f"{rate:,.0f} tokens/s", f"{row['seconds']:.1f} s"]
    if "dev_loss" in row:
        parts.append(f"dev loss {row['dev_loss']:.4f}")
        parts.append(f"dev error {row['error_rate']:.2%}")
        parts.append(f"right {row['sequence_accuracy']:.2%}")
    if row["refused"]:
        parts.append(f"refused {row['refused']} steps")
    return "  ".join(parts)


def show_samples(console, trained, pairs, options):
    """Prints decoded examples, right and wrong marked, and how many were right."""
    from k3seq.data.pairs import references

    known = references(pairs)
    sources = list(known)[: options.samples]
    if not sources:
        return
    table = Table(
        "source", "decoded", "expected", "", title="held-out examples" if options.task or options.dev else "training examples"
    )
    for source, decoded in zip(sources, trained.decode(sources, options.batch_size), strict=True):
        right = decoded in known[source]
        verdict = Text("right", "green") if right else Text("wrong", "red")
        table.add_row(Text(source), Text(decoded), Text(known[source][0]), verdict)
    console.print(table)
    rows = trained.history["epochs"]
    if rows and "sequence_accuracy" in rows[-1]:
        saved = rows[trained.history["saved_epoch"] - 1]
        console.print(f"{saved['sequence_accuracy']:.1%} of {len(references(pairs))} held-out sources right", highlight=False)
