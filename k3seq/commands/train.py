"""`k3seq train`: trains a seq2seq model on text pairs or arithmetic problems, into a run directory."""

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from k3seq.commands import process
from k3seq.commands.consoles import log_console, progress_bar, results_console
from k3seq.commands.options import option_name
from k3seq.commands.train_options import SIZES, Options
from k3seq.errors import DataError, Interrupted, K3SeqError, UsageError
from k3seq.report.record import versions
from k3seq.typing import Json

if TYPE_CHECKING:
    from k3seq.data.batches import Batches
    from k3seq.data.pairs import Pairs
    from k3seq.pipeline import Pipeline

HELD_OUT = 500  # arithmetic problems


def train(options: Options, console: Console | None = None) -> dict[str, Json]:
    """Trains a model. Progress goes to standard error, decoded examples to standard output.

    Args:
        options: of `with_defaults`.
        console: where the examples are printed.

    Returns:
        The record of the run: versions, options, counts, epochs, directory.

    Raises:
        UsageError, DataError: an option or the data cannot be used; nothing was trained.
        K3SeqError: an epoch changed nothing, because every step was refused.
        Interrupted: a signal arrived; the message says what is saved.
    """
    from k3seq.data.runs import create_run_directory

    name = options.task or Path(options.data or "").stem
    with create_run_directory(options.out, options.overwrite, name) as directory:
        record: dict[str, Json] = {"started": time.time(), "directory": str(directory), "epochs": []}
        try:
            _train(options, directory, record, console or results_console(), log_console())
        except KeyboardInterrupt:
            done, word = len(record["epochs"]), process.interruption()[0]
            kept = what_is_saved(directory, record["started"])
            raise Interrupted(f"{word} after {done} of {options.epochs} epochs; {kept}") from None
    return record


def _train(options: Options, directory: Path, record: dict[str, Json], results: Console, log: Console) -> None:
    """Fills `record`, which is saved with the model."""
    with naming_options():
        train, dev = read_data(options)
        skipped = dict(Counter(getattr(train, "skipped", {})) + Counter(getattr(dev, "skipped", {})))
        if skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
            log.print(f"skipped {sum(skipped.values())} bad lines: {reasons}")
        import keras

        from k3seq.inspect.pictures import draw_training, save_figure
        from k3seq.train.loop import epochs

        trained, dev_batches, batches = prepare(options, train, dev)
    model, backend = trained.model, keras.backend.backend()
    parameters, jit = model.count_params(), model.jit_compile
    log.print(
        f"{options.model} on {backend}: {parameters:,} parameters, {len(train):,} training pairs, {len(dev):,} held out, "
        f"{len(batches)} steps an epoch, jit={jit}"
    )
    record |= {"backend": backend, "versions": versions(), "options": asdict(options), "parameters": parameters}
    record |= {"training_pairs": len(train), "dev_pairs": len(dev), "skipped": skipped, "jit": bool(jit), "first_steps": []}
    trained.history = record
    best, started = None, time.perf_counter()
    with progress_bar(log, *_columns()) as progress:
        bar = progress.add_task("compiling", total=len(batches), loss="")

        def show_step(step):
            if step.number <= options.log_steps:
                record["first_steps"].append(step.logs["loss"])
                results.print(f"step {step.number} loss {step.logs['loss']:.4f}")
            progress.update(bar, advance=1, description="training", loss=f"loss {step.logs['loss']:.4f}")

        for epoch in epochs(model, batches, options.epochs, show_step):
            if epoch.refused == len(batches):
                raise K3SeqError(
                    f"Expected a finite loss and gradient in epoch {epoch.number}. Received: none in {len(batches)} steps. "
                    f"Lower --learning-rate. {what_is_saved(directory, record['started'])}"
                )
            row = epoch._asdict()
            if dev_batches:
                progress.update(bar, description="evaluating", total=len(dev), completed=0)
                row |= dev_scores(trained, dev, dev_batches, lambda done: progress.update(bar, completed=done))
            record["epochs"].append(row)
            record["seconds"] = time.perf_counter() - started
            log.print(epoch_line(row))
            if best is None or not dev or row["error_rate"] <= best:
                best = row.get("error_rate")
                record["saved_epoch"] = epoch.number
                with process.without_tensorflow():
                    trained.save(directory)
            else:
                trained.save_history(directory)
            progress.reset(bar, total=len(batches), description="training", loss="")
    save_figure(draw_training(record["epochs"]), directory / "losses.png")
    show_samples(results, trained, dev or train, options)
    log.print(f"saved epoch {record['saved_epoch']} to {directory}")


def _columns() -> list[ProgressColumn]:
    description, loss = TextColumn("{task.description}"), TextColumn("{task.fields[loss]}")
    return [description, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), loss]


def what_is_saved(directory: Path, started: float) -> str:
    """What the run directory holds of the training that began at `started`, in words."""
    from k3seq.data.runs import holds_run, read_run

    try:
        record = read_run(directory, lambda record, parts: record)
    except K3SeqError:
        record = {}
    if record.get("started") == started:
        return f"{directory} holds epoch {record['saved_epoch']}"
    return f"{directory} holds the earlier run" if holds_run(directory) else "nothing was saved"


@contextlib.contextmanager
def naming_options() -> Iterator[None]:
    """In the message of a UsageError, an argument such as `num_layers=0` becomes the option that the user typed."""
    names = [*SIZES, "vocabulary_size", "tokens", "max_val", "limit", "seed", "gradient_accumulation_steps", "label_smoothing"]
    try:
        yield
    except UsageError as error:
        named = re.sub(rf"(?<!-)\b({'|'.join(names)})\b=?", lambda m: _typed(m.group()), str(error))
        raise UsageError(named) from error


def _typed(argument: str) -> str:
    name = argument.removesuffix("=")
    return f"{option_name(name)} " if name != argument else option_name(name) if "_" in name else name


def read_data(options: Options) -> "tuple[Pairs, Pairs]":
    """(training pairs, held-out pairs).

    Raises:
        DataError: a file cannot be read, or has no pair.
        UsageError: there are fewer distinct problems than `--problems` asks for.
    """
    from k3seq.data import arithmetic
    from k3seq.data.pairs import Pairs, read_pairs

    if options.task:
        try:
            drawn = arithmetic.problems(options.problems + HELD_OUT, options.max_val, options.seed, distinct=True)
        except UsageError as error:
            raise UsageError(f"{error} (--problems {options.problems}, and {HELD_OUT} that are held out)") from error
        train, dev = (arithmetic.pairs(part) for part in arithmetic.split(drawn, HELD_OUT, options.seed))
        return Pairs(train), Pairs(dev)
    on_error = "skip" if options.skip_bad_lines else "raise"
    train = read_pairs(options.data or "", on_error, options.limit)
    dev = read_pairs(options.dev, on_error) if options.dev else Pairs()
    for path, pairs in ((options.data, train), (options.dev, dev)):
        if path and not pairs:
            raise DataError("Expected at least one pair. Received: none", path)
    return train, dev


def prepare(options: Options, train: "Pairs", dev: "Pairs") -> "tuple[Pipeline, Batches | None, Batches]":
    """(pipeline with a compiled model, batches of the held-out pairs, batches of the training pairs).

    Raises:
        UsageError: an option does not fit the model or the data.
        DataError: a held-out pair is longer than the model can take, with its line.
    """
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
    known = registry.sizes(options.model)
    chosen = {name: value for name in SIZES if (value := getattr(options, name)) is not None}
    if foreign := [option_name(name) for name in chosen if name not in known]:
        taken = ", ".join(option_name(name) for name in SIZES if name in known)
        raise UsageError(f"Expected of the sizes {taken} for --model {options.model}. Received: {', '.join(foreign)}")
    source, target = (
        tokenizers.of_kind(name).fit([pair[side] for pair in train], vocabulary_size=options.vocabulary_size)
        for name, side in ((kinds[0], 0), (kinds[-1], 1))
    )
    examples = encode_pairs(train, source, target)
    longest_source, longest_target = (max(map(len, side)) for side in zip(*examples, strict=True))
    max_steps = max(longest_target + 1, 2)  # END is a token too
    limits = {
        "width_source": 2 * longest_source,
        "width_target": 2 * max_steps,
        "max_steps": 4 * max(longest_source, max_steps),
    }
    model = registry.seq2seq(
        options.model,
        source.vocabulary_size,
        target.vocabulary_size,
        **chosen,
        **{name: value for name, value in limits.items() if name in known},
    )
    trained = Pipeline(model, source, target, 2 * max_steps)
    dev_examples = trained.encode_pairs(dev)
    initialize(model, options.seed)
    batches = Batches(examples, options.batch_size, options.seed, buckets=options.buckets)
    dev_batches = None
    if dev:
        dev_batches = Batches(dev_examples, options.batch_size, options.seed, shuffle=False, buckets=options.buckets)
    optimizer = keras.optimizers.Adam(options.learning_rate, global_clipnorm=options.clip_norm)
    steps = options.epochs * len(batches)
    optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, alpha=0.01, warmup_target=options.learning_rate, warmup_steps=min(200, steps // 10 + 1)
    )
    jit = "auto" if options.jit is None else options.jit
    model.compile(optimizer, loss=TokenCrossentropy(options.label_smoothing), jit_compile=jit)
    model.step_options(gradient_accumulation_steps=options.gradient_accumulation_steps)
    return trained, dev_batches, batches


def dev_scores(trained: "Pipeline", dev: "Pairs", dev_batches: "Batches", on_batch: Callable[[int], None]) -> dict[str, float]:
    """Loss, error rate and sequence accuracy on held-out pairs, decoded greedily."""
    from k3seq.commands.evaluate import score_pairs
    from k3seq.data.pairs import references
    from k3seq.train.loop import evaluate

    scores = score_pairs(trained, references(dev), dev_batches.batch_size, on_batch)
    wanted = {name: scores[name] for name in ("error_rate", "sequence_accuracy")}
    return {"dev_loss": evaluate(trained.model, dev_batches), **wanted}


def epoch_line(row: dict[str, Any]) -> str:
    """The results of an epoch as one line."""
    rate = row["tokens"] / max(row["seconds"], 1e-9)
    parts = [f"epoch {row['number']}", f"loss {row['loss']:.4f}", f"{rate:,.0f} tokens/s", f"{row['seconds']:.1f} s"]
    if "dev_loss" in row:
        parts.append(f"dev loss {row['dev_loss']:.4f}")
        parts.append(f"dev error {row['error_rate']:.2%}")
        parts.append(f"right {row['sequence_accuracy']:.2%}")
    if row["refused"]:
        parts.append(f"refused {row['refused']} steps")
    return "  ".join(parts)


def show_samples(console: Console, trained: "Pipeline", pairs: "Pairs", options: Options) -> None:
    """Prints decoded examples, each marked right or wrong, and how many held-out sources were right."""
    from k3seq.data.pairs import references

    known = references(pairs)
    sources = list(known)[: options.samples]
    if not sources:
        return
    held_out = "sequence_accuracy" in trained.history["epochs"][-1]
    table = Table("source", "decoded", "expected", "", title=f"{'held-out' if held_out else 'training'} examples")
    for source, decoded in zip(sources, trained.decode(sources, options.batch_size), strict=True):
        verdict = Text("right", "green") if decoded in known[source] else Text("wrong", "red")
        table.add_row(Text(source), Text(decoded), Text(known[source][0]), verdict)
    console.print(table)
    if held_out:
        saved = trained.history["epochs"][trained.history["saved_epoch"] - 1]
        console.print(f"{saved['sequence_accuracy']:.1%} of {len(known)} held-out sources right")
