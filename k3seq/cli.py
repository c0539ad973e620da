"""The command line: declares the commands and their options, and reports errors in one line.

A function here passes its options to the function of the same name in `k3seq.commands`. The result is written to `--json`. Exit
codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 the reader of standard output is gone, 128 + n ended by signal n.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

from k3seq import __version__
from k3seq.errors import require_extra
from k3seq.runtime.memory import keep_memory

with require_extra("cli"):
    import typer

    from k3seq.commands.invocation import Invocation, backend_names, listed
    from k3seq.commands.options import (
        AT_LEAST_1,
        OUTPUT,
        PROCESS,
        BackendOption,
        BackendsOption,
        BatchSizeOption,
        BeamWidthOption,
        JsonOption,
        LengthPenaltyOption,
        ModelArgument,
        RunArgument,
        SkipBadLinesOption,
        checked,
        with_options_of,
    )
    from k3seq.commands.process import exit_code, failed, handle_signals, prepare_streams
    from k3seq.commands.train_options import Options, with_defaults

app = typer.Typer(
    name="k3seq",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def k3seq(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Sequence to sequence on Keras 3: train, decode and compare on JAX, TensorFlow and PyTorch."""
    if version:
        print(f"k3seq {__version__}")
        raise typer.Exit()


@app.command()
@with_options_of(Options)
def train(options: Options, backend: BackendOption = None, json: JsonOption = None) -> None:
    """Train a model on text pairs or on arithmetic problems, and show what it decodes."""
    options = with_defaults(options)
    started = Invocation(backend, json)
    from k3seq.commands import train as command

    started.finish(command.train(options))


@app.command()
@checked
def decode(
    directory: RunArgument,
    batch_size: BatchSizeOption = 64,
    beam_width: BeamWidthOption = 1,
    length_penalty: LengthPenaltyOption = 0.0,
    backend: BackendOption = None,
    json: JsonOption = None,
) -> None:
    """Decode lines of standard input: one result a line, in order."""
    started = Invocation(backend, json)
    from k3seq.commands import decode as command

    result = command.decode(directory, batch_size=batch_size, beam_width=beam_width, length_penalty=length_penalty)
    started.finish(result)


@app.command()
@checked
def evaluate(
    directory: RunArgument,
    data: Annotated[
        str, typer.Option(metavar="FILE", help="Pairs to score on: source TAB target, UTF-8.", rich_help_panel="Data")
    ],
    limit: Annotated[int | None, typer.Option(help="Number of pairs to read.", rich_help_panel="Data"), AT_LEAST_1] = None,
    skip_bad_lines: SkipBadLinesOption = False,
    batch_size: BatchSizeOption = 64,
    beam_width: BeamWidthOption = 1,
    length_penalty: LengthPenaltyOption = 0.0,
    backend: BackendOption = None,
    json: JsonOption = None,
) -> None:
    """Score a run on text pairs: token and sequence accuracy, edit-distance error rate."""
    started = Invocation(backend, json)
    from k3seq.commands import evaluate as command

    result = command.evaluate(
        directory,
        data,
        limit=limit,
        skip_bad_lines=skip_bad_lines,
        batch_size=batch_size,
        beam_width=beam_width,
        length_penalty=length_penalty,
    )
    started.finish(result)


@app.command()
@checked
def summary(
    name: ModelArgument,
    depth: Annotated[int, typer.Option(help="Levels of nested layers to show."), AT_LEAST_1] = 1,
    backend: BackendOption = None,
    json: JsonOption = None,
) -> None:
    """Show the layers of a model and its parameters, trainable and not."""
    started = Invocation(backend, json)
    from k3seq.commands import summary as command

    started.finish(command.summary(name, depth))


@app.command("matrix", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@checked
def run_matrix(
    context: typer.Context,
    backends: BackendsOption = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Backends tested at the same time; default: the number of cores.", rich_help_panel=PROCESS),
        AT_LEAST_1,
    ] = None,
    backend: BackendOption = None,
    json: JsonOption = None,
) -> None:
    """Run pytest once per backend of backends_matrix.yml; other arguments go to pytest."""
    started, names = Invocation(backend, json, binds=False), backend_names(backends, backend)
    from k3seq.commands import matrix as command

    started.finish(command.matrix(names, context.args, workers))


@app.command()
def backends(backend: BackendOption = None, json: JsonOption = None) -> None:
    """Show which backends are installed, their versions and devices."""
    started = Invocation(backend, json, binds=False)
    from k3seq.commands import backends as command

    started.finish(command.backends([backend] if backend else []))


@app.command()
def provenance(
    name: ModelArgument,
    inputs: Annotated[
        str | None, typer.Option(metavar="FILE", help="Inputs of the model as .npz; default: random ones.")
    ] = None,
    picture: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw the result to FILE as PNG.", rich_help_panel=OUTPUT)
    ] = None,
    backend: BackendOption = None,
    json: JsonOption = None,
) -> None:
    """Show the layers and weights that a model's outputs depend on, and which weights get a gradient."""
    started = Invocation(backend, json, {"--picture": picture})
    from k3seq.commands import provenance as command

    started.finish(command.provenance(name, inputs, picture))


@app.command()
def divergences(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Divergences to run. Default: all.")] = None,
    backends: BackendsOption = None,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the page of all divergences to FILE, and run none.", rich_help_panel=OUTPUT),
    ] = None,
    backend: BackendOption = None,
    json: JsonOption = None,
) -> None:
    """Run the known divergences between backends and show which ones the installed Keras still has."""
    started, names = Invocation(backend, json, {"--page": page}, binds=False), backend_names(backends, backend)
    from k3seq.commands import divergences as command

    started.finish(command.write_page(page) if page else command.divergences(ids or (), names))


@app.command()
def parity(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CASE]...",
            help="package.module:name of a case, cases, a layer or a model; or a pattern of k3seq's own cases (default: all).",
        ),
    ] = None,
    backends: BackendsOption = None,
    checks: Annotated[str | None, typer.Option(metavar="A,B", help="Checks to run, separated by commas. Default: all.")] = None,
    dtypes: Annotated[str | None, typer.Option(metavar="A,B", help="Dtypes: float32, bfloat16, float16, float64.")] = None,
    inputs: Annotated[
        str | None, typer.Option(metavar="JSON", help='Inputs such as {"shape": [2, 5]}, with "dtype" and "high".')
    ] = None,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a page with the results to FILE.", rich_help_panel=OUTPUT)
    ] = None,
    json: JsonOption = None,
) -> None:
    """Compare layers and models across backends: parameters, outputs, gradients, training, decoding, files."""
    started = Invocation(None, json, {"--html": html}, binds=False)
    from k3seq.commands import parity as command

    started.finish(command.parity(targets or (), listed(backends), listed(checks), listed(dtypes), inputs, html))


@app.command()
def bench(
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help="package.module:factory of a layer or model. Default: a suite.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="NAME", help="Suite: quick (default), train, decode, layers, ...")
    ] = None,
    inputs: Annotated[
        str | None, typer.Option(metavar="JSON", help='Inputs of TARGET, such as {"shape": [64, 20], "dtype": "int32"}.')
    ] = None,
    labels: Annotated[str | None, typer.Option(metavar="JSON", help="Labels of TARGET, in the form of --inputs.")] = None,
    loss: Annotated[str | None, typer.Option(metavar="NAME", help="Loss of Keras, or package.module:name.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows of each input of TARGET.")] = None,
    kind: Annotated[str, typer.Option(help="Work to measure for TARGET: train, decode or layer.")] = "train",
    backends: BackendsOption = None,
    jit: Annotated[
        str, typer.Option(help="Modes: matrix (what backends_matrix.yml lists), first of it, jit, or 'no jit'.")
    ] = "matrix",
    only: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Rows whose name contains TEXT; may be repeated.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 5,
    seconds: Annotated[float, typer.Option(help="Seconds that a row is measured in a round.")] = 0.5,
    steps: Annotated[int | None, typer.Option(help="Steps that a row is measured in a round, instead of --seconds.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one request to a row's process.")] = 600.0,
    parity: Annotated[bool, typer.Option("--parity", help="Compare outputs and gradients too, not losses alone.")] = False,
    csv: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the rows to FILE as CSV.", rich_help_panel=OUTPUT)
    ] = None,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a page with plots to FILE.", rich_help_panel=OUTPUT)
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="OLD.json", help="Show what changed beyond the noise since OLD.json.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Measure the speed of each backend and of its peers in interleaved rounds."""
    options = {name: value for name, value in locals().items() if name not in ("target", "suite", "json")}
    started = Invocation(None, json, {"--csv": csv, "--html": html}, binds=False)
    from k3seq.commands import bench as command

    options |= {"backends": listed(backends), "only": only or (), "jits": options.pop("jit"), "against": options.pop("compare")}
    started.finish(command.bench(target, suite, **options))


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code. An error is one line on stderr, with a traceback where K3SEQ_DEBUG=1."""
    Invocation.arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:  # the process has no other purpose
        prepare_streams()
        handle_signals()
        keep_memory()
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # package.module:factory is found from the working directory
    except FileNotFoundError:
        return failed("Expected a working directory that exists. Received: a deleted one. Change to another one.", 1)
    return exit_code(lambda: app(args=Invocation.arguments, prog_name="k3seq", standalone_mode=False))
