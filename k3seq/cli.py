"""The command line: parses, chooses the backend before anything imports keras, and reports errors in one line.

A function here reads the options and hands them to `k3seq.commands.<name>.run`; what that returns is written to `--json`. Exit
codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 the reader of stdout went away.
"""

import dataclasses
import logging
import os
import sys
import time
from pathlib import Path
from typing import Annotated

from k3seq import __version__
from k3seq.errors import K3SeqError, UsageError, require_extra
from k3seq.report.record import check_json, write_json
from k3seq.runtime import matrix
from k3seq.runtime.memory import keep_memory

with require_extra("cli"):
    import typer

_arguments: list[str] = []  # of this run, for the JSON
app = typer.Typer(name="k3seq", add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

BackendOption = Annotated[str | None, typer.Option("--backend", metavar="NAME", help="jax, tensorflow or torch.")]
JsonOption = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the results to FILE as JSON.")]


def choose_backend(name: str | None) -> str:
    """Binds the backend: `--backend`, else KERAS_BACKEND, else the first one installed (then told on stderr).

    Raises:
        MissingBackend: it is not installed, or none is. UsageError: no such backend, or keras has already bound another.
    """
    known = matrix.load()
    asked = name or os.environ.get("KERAS_BACKEND")
    chosen = asked or next((n for n in known.training if matrix.installed(n, known)), next(iter(known.backends)))
    matrix.require(chosen, known)
    if not asked:
        print(f"k3seq: backend {chosen} (neither --backend nor KERAS_BACKEND is given)", file=sys.stderr)
    keras = sys.modules.get("keras")
    if keras is not None and keras.config.backend() != chosen:
        raise UsageError(f"Expected keras on {chosen}. Received: keras already imported on {keras.config.backend()}")
    os.environ["KERAS_BACKEND"] = chosen
    return chosen


class Invocation:
    """One command from its options to its JSON: `Invocation(backend, json)` checks both at once, `finish(result)` writes.

    Args:
        backend: what `--backend` gave. json: what `--json` gave.
        binds: whether the command runs keras in this process; False leaves the choice of backends to the command.
    """

    def __init__(self, backend: str | None, json: Path | None, binds: bool = True):
        check_json(json)
        self.started, self.json = time.time(), json
        self.backend = choose_backend(backend) if binds else backend

    def finish(self, result: dict):
        """Writes the JSON; a result with an `exit_code` other than 0 ends the command with it."""
        write_json(self.json, _arguments, self.backend, result, self.started)
        if result.get("exit_code"):
            raise typer.Exit(result["exit_code"])


@app.callback(invoke_without_command=True)
def k3seq(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
):
    """Sequence to sequence on Keras 3: train, decode and compare on JAX, TensorFlow and PyTorch."""
    if version:
        print(f"k3seq {__version__}")
        raise typer.Exit()


@app.command()
def train(
    task: Annotated[str | None, typer.Option(help="A built-in task: arithmetic.")] = None,
    data: Annotated[str | None, typer.Option(metavar="FILE", help="Pairs to train on: source TAB target, UTF-8.")] = None,
    dev: Annotated[str | None, typer.Option(metavar="FILE", help="Pairs to hold out and decode after every epoch.")] = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Where the run goes; default: a new runs/NAME-N.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    model: Annotated[str | None, typer.Option(help="lstm, lstm-attention, transformer or sliding.")] = None,
    tokens: Annotated[str | None, typer.Option(help="char, space, word or subword; SOURCE/TARGET where they differ.")] = None,
    vocabulary_size: Annotated[int | None, typer.Option(help="Maximum vocabulary size.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first pairs of --data.")] = None,
    skip_bad_lines: Annotated[bool, typer.Option("--skip-bad-lines", help="Count bad lines and leave them out.")] = False,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pairs in a batch.")] = None,
    buckets: Annotated[int | None, typer.Option(help="Most shapes of a batch; each is compiled once.")] = None,
    units: Annotated[int | None, typer.Option(help="Units of the LSTM layers.")] = None,
    embed_dim: Annotated[int | None, typer.Option(help="Size of a token embedding.")] = None,
    num_layers: Annotated[int | None, typer.Option(help="Layers of the encoder, and of the decoder.")] = None,
    dense_dim: Annotated[int | None, typer.Option(help="Units of the feed-forward layers.")] = None,
    num_heads: Annotated[int | None, typer.Option(help="Attention heads.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Rate in training.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the schedule (warm-up, then cosine).")] = None,
    label_smoothing: Annotated[float, typer.Option(help="Share of the target spread over the vocabulary.")] = 0.0,
    clip_norm: Annotated[float, typer.Option(help="Largest global norm of a gradient.")] = 1.0,
    gradient_accumulation_steps: Annotated[int, typer.Option(help="Parts that each batch is split into to save memory.")] = 1,
    seed: Annotated[int, typer.Option(help="Weights, order and problems follow from it, on every backend.")] = 0,
    jit: Annotated[bool | None, typer.Option("--jit/--no-jit", help="Compile with XLA; default: the backend's own.")] = None,
    log_steps: Annotated[int, typer.Option(help="Print the loss of so many first steps.")] = 0,
    samples: Annotated[int, typer.Option(help="Decoded examples to show at the end.")] = 20,
    max_val: Annotated[int | None, typer.Option(help="Arithmetic: numbers lie in [1 - max_val, max_val).")] = None,
    problems: Annotated[int | None, typer.Option(help="Arithmetic: problems to train on.")] = None,
    backend: BackendOption = None,
    json: JsonOption = None,
):
    """Train a model on text pairs or on arithmetic problems, and show what it decodes."""
    from k3seq.commands import train as command

    names = {field.name for field in dataclasses.fields(command.Options)}
    options = command.with_defaults(command.Options(**{k: v for k, v in locals().items() if k in names}))
    run = Invocation(backend, json)
    run.finish(command.train(options))


@app.command()
def decode(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="What k3seq train wrote.")],
    batch_size: Annotated[int, typer.Option(help="Lines decoded at once.")] = 64,
    beam_width: Annotated[int, typer.Option(help="Hypotheses kept by beam search; 1 is greedy decoding.")] = 1,
    length_penalty: Annotated[float, typer.Option(help="Of a beam search: 0 prefers short results, 1 long ones.")] = 0.0,
    backend: BackendOption = None,
    json: JsonOption = None,
):
    """Decode lines of standard input: one result a line, in order."""
    run = Invocation(backend, json)
    from k3seq.commands import decode as command

    run.finish(command.decode(directory, batch_size=batch_size, beam_width=beam_width, length_penalty=length_penalty))


@app.command()
def evaluate(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="What k3seq train wrote.")],
    data: Annotated[str, typer.Option(metavar="FILE", help="Pairs to score on: source TAB target, UTF-8.")],
    limit: Annotated[int | None, typer.Option(help="Only the first pairs.")] = None,
    batch_size: Annotated[int, typer.Option(help="Sources decoded at once.")] = 64,
    beam_width: Annotated[int, typer.Option(help="Hypotheses kept by beam search; 1 is greedy decoding.")] = 1,
    length_penalty: Annotated[float, typer.Option(help="Of a beam search: 0 prefers short results, 1 long ones.")] = 0.0,
    skip_bad_lines: Annotated[bool, typer.Option("--skip-bad-lines", help="Count bad lines and leave them out.")] = False,
    backend: BackendOption = None,
    json: JsonOption = None,
):
    """Score a run on text pairs: token and sequence accuracy, edit-distance error rate."""
    run = Invocation(backend, json)
    from k3seq.commands import evaluate as command

    run.finish(command.evaluate(directory, data, limit, batch_size, skip_bad_lines, None, beam_width, length_penalty))


@app.command()
def summary(
    name: Annotated[str, typer.Argument(help="A model of k3seq, or package.module:factory of your own.")],
    depth: Annotated[int, typer.Option(min=1, help="How far into layers of layers to go.")] = 1,
    backend: BackendOption = None,
    json: JsonOption = None,
):
    """Show the layers of a model and its parameters, trainable and not."""
    run = Invocation(backend, json)
    from k3seq.commands import summary as command

    run.finish(command.summary(name, depth))


@app.command("matrix", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run_matrix(
    context: typer.Context,
    backends: Annotated[str | None, typer.Option(metavar="A,B", help="Only these backends.")] = None,
    workers: Annotated[int | None, typer.Option(help="Backends at a time; default: as many as cores.")] = None,
    backend: BackendOption = None,
    json: JsonOption = None,
):
    """Run pytest once per backend of backends_matrix.yml; other arguments go to pytest."""
    run, names = Invocation(backend, json, binds=False), backend_names(backends, backend)
    from k3seq.commands import matrix as command

    run.finish(command.matrix(names, context.args, workers))


@app.command()
def backends(backend: BackendOption = None, json: JsonOption = None):
    """Show which backends are installed, their versions and devices."""
    run = Invocation(backend, json, binds=False)
    from k3seq.commands import backends as command

    run.finish(command.backends([backend] if backend else []))


@app.command()
def provenance(
    name: Annotated[str, typer.Argument(help="A model of k3seq, or package.module:factory of your own.")],
    inputs: Annotated[str | None, typer.Option(metavar="FILE", help="The model's inputs as .npz; default: drawn.")] = None,
    picture: Annotated[str | None, typer.Option(metavar="FILE", help="Draw it to FILE as PNG.")] = None,
    backend: BackendOption = None,
    json: JsonOption = None,
):
    """Show which layers and weights stand behind a model's outputs, and which weights get a gradient."""
    run = Invocation(backend, json)
    from k3seq.commands import provenance as command

    run.finish(command.provenance(name, inputs, picture))


@app.command()
def divergences(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which; default: all.")] = None,
    backends: Annotated[str | None, typer.Option(metavar="A,B", help="Only these backends.")] = None,
    page: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the page of all, and run nothing.")] = None,
    backend: BackendOption = None,
    json: JsonOption = None,
):
    """Run the known divergences between backends and tell which the installed Keras still has."""
    run = Invocation(backend, json, binds=False)
    from k3seq.commands import divergences as command

    names = backend_names(backends, backend)
    run.finish(command.write_page(page) if page else command.divergences(ids or (), names))


@app.command()
def parity(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CASE]...",
            help="package.module:name of a case, cases, a layer or a model; or a pattern over k3seq's own. Default: all own.",
        ),
    ] = None,
    backends: Annotated[str | None, typer.Option(metavar="A,B", help="Only these backends.")] = None,
    checks: Annotated[str | None, typer.Option(metavar="A,B", help="Only these checks.")] = None,
    dtypes: Annotated[str | None, typer.Option(metavar="A,B", help="float32, bfloat16, float16, float64.")] = None,
    inputs: Annotated[
        str | None, typer.Option(metavar="JSON", help='Such as {"shape": [2, 5]}, with "dtype" and "high".')
    ] = None,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page with the results.")] = None,
    json: JsonOption = None,
):
    """Compare layers and models across backends: parameters, outputs, gradients, training, decoding, files."""
    run = Invocation(None, json, binds=False)
    from k3seq.commands import parity as command

    run.finish(command.parity(targets or (), listed(backends), listed(checks), listed(dtypes), inputs, html))


@app.command()
def bench(
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help="package.module:factory of a layer or model. Default: a suite.")
    ] = None,
    suite: Annotated[str | None, typer.Option(metavar="NAME", help="quick (default), train, decode, layers, ...")] = None,
    inputs: Annotated[str | None, typer.Option(metavar="JSON", help='Such as {"shape": [64, 20], "dtype": "int32"}.')] = None,
    labels: Annotated[str | None, typer.Option(metavar="JSON", help="The same, of what TARGET is trained on.")] = None,
    loss: Annotated[str | None, typer.Option(metavar="NAME", help="A loss of Keras, or package.module:name.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows of each input of TARGET.")] = None,
    kind: Annotated[str, typer.Option(help="What to do with TARGET: train, decode or layer.")] = "train",
    backends: Annotated[str | None, typer.Option(metavar="A,B", help="Only these backends.")] = None,
    jit: Annotated[
        str, typer.Option(help="matrix (what backends_matrix.yml lists), first of it, jit, or 'no jit'.")
    ] = "matrix",
    only: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Only rows whose name holds this text; may be given again.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a row's turn in a round.")] = 0.5,
    steps: Annotated[int | None, typer.Option(help="Steps of a turn, in the place of its length.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one request to a row's process.")] = 600.0,
    parity: Annotated[bool, typer.Option("--parity", help="Compare outputs and gradients too, not losses alone.")] = False,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write the rows as CSV.")] = None,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page with plots.")] = None,
    compare: Annotated[str | None, typer.Option(metavar="OLD.json", help="Tell what changed beyond the noise.")] = None,
    json: JsonOption = None,
):
    """Measure how fast each backend is, beside what it competes with, in interleaved rounds."""
    run = Invocation(None, json, binds=False)
    from k3seq.commands import bench as command

    run.finish(
        command.bench(
            target,
            suite,
            inputs=inputs,
            labels=labels,
            loss=loss,
            batch_size=batch_size,
            kind=kind,
            backends=listed(backends),
            jits=jit,
            only=only or (),
            rounds=rounds,
            seconds=seconds,
            steps=steps,
            timeout=timeout,
            parity=parity,
            csv=csv,
            html=html,
            against=compare,
        )
    )


def listed(names: str | None) -> list[str]:
    """The names of an option such as `--backends A,B`."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def backend_names(several: str | None, one: str | None) -> list[str]:
    """The names of `--backends A,B`, or of `--backend`; UsageError where both are given."""
    if several and one:
        raise UsageError("Expected --backend or --backends. Received: both")
    return listed(several or one)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; an error is one line on stderr (a traceback too where K3SEQ_DEBUG=1)."""
    global _arguments
    _arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:  # a process of its own
        keep_memory()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("absl").setLevel(logging.ERROR)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # package.module:factory is found from the working directory
    try:
        code = app(args=_arguments, prog_name="k3seq", standalone_mode=False)
        sys.stdout.flush()
        return failed("interrupted", 130) if code == 130 else code or 0  # typer turns Ctrl-C into 130 and says nothing
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout once more at its end
        return 141
    except (KeyboardInterrupt, typer.Abort):
        return failed("interrupted", 130)
    except K3SeqError as error:
        return failed(error, error.exit_code)
    except OSError as error:
        return failed(error, 1)
    except Exception as error:
        shown = getattr(error, "format_message", None)  # of typer's usage errors
        if shown is not None:
            return failed(shown(), 2)
        return failed(f"{type(error).__name__}: {error} (K3SEQ_DEBUG=1 shows where)", 1)


def failed(message, code: int) -> int:
    """Prints `k3seq: message` as one line on stderr and gives the exit code back."""
    if os.environ.get("K3SEQ_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    print(f"k3seq: {' '.join(str(message).split())}", file=sys.stderr)
    return code
