"""Options that several commands share, and the ranges of numbers that options take."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from k3seq.errors import UsageError

OUTPUT, PROCESS = "Output", "Process"  # panels of the help, in the order of their first option


@dataclass(frozen=True)
class Range:
    """The numbers that an option takes. Infinity and NaN are never among them.

    Args:
        least, most: the bounds, both in the range.
        above, below: the bounds, both outside the range.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def violated(self, value: float) -> str | None:
        """What the value is not, such as "at least 1"; None where it is in the range."""
        if not math.isfinite(value):
            return "finite"
        if self.least is not None and value < self.least:
            return f"at least {self.least}"
        if self.most is not None and value > self.most:
            return f"at most {self.most}"
        if self.above is not None and value <= self.above:
            return f"above {self.above}"
        if self.below is not None and value >= self.below:
            return f"below {self.below}"
        return None


AT_LEAST_0, AT_LEAST_1 = Range(0, 2**31 - 1), Range(1, 2**31 - 1)  # larger counts fit no array
SHARE = Range(least=0, below=1)

BackendOption = Annotated[
    str | None,
    typer.Option("--backend", metavar="NAME", help="Backend: jax, tensorflow or torch.", rich_help_panel=PROCESS),
]
BackendsOption = Annotated[
    str | None, typer.Option("--backends", metavar="A,B", help="Backends, separated by commas.", rich_help_panel=PROCESS)
]
JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write the results to FILE as JSON; - is standard output.", rich_help_panel=OUTPUT
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="DIR", help="Run directory that k3seq train wrote.")]
ModelArgument = Annotated[str, typer.Argument(help="Model of k3seq, or package.module:factory of your own.")]
BeamWidthOption = Annotated[
    int, typer.Option(help="Hypotheses kept by beam search; 1 is greedy decoding.", rich_help_panel="Decoding"), AT_LEAST_1
]
LengthPenaltyOption = Annotated[
    float,
    typer.Option(
        help="Exponent of beam search's length penalty: 0 prefers short results, 1 long ones.", rich_help_panel="Decoding"
    ),
    Range(-100, 100),
]
BatchSizeOption = Annotated[int, typer.Option(help="Lines decoded at once.", rich_help_panel="Decoding"), AT_LEAST_1]
SkipBadLinesOption = Annotated[
    bool, typer.Option("--skip-bad-lines", help="Count lines that are not pairs, and leave them out.", rich_help_panel="Data")
]


def option_name(parameter: str) -> str:
    """`--num-layers` of `num_layers`."""
    return f"--{parameter.replace('_', '-')}"


def check_ranges(owner: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Checks values against the `Range` in the annotations of a function's parameters or of a class's fields.

    Raises:
        UsageError: a value is outside its range; the message names the option.
    """
    for name, annotation in get_type_hints(owner, include_extras=True).items():
        for allowed in get_args(annotation):
            value = values.get(name)
            if isinstance(allowed, Range) and value is not None and (expected := allowed.violated(value)):
                raise UsageError(f"Expected {option_name(name)} to be {expected}. Received: {value}")


def checked(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with its options checked by `check_ranges` before it is called."""

    @functools.wraps(command)
    def check_and_call(**values: Any) -> None:
        check_ranges(command, values)
        command(**values)

    return check_and_call


def check_search(beam_width: int, length_penalty: float) -> None:
    """Raises UsageError where a length penalty is given for greedy decoding, which would ignore it."""
    if length_penalty and beam_width == 1:
        raise UsageError(f"Expected --beam-width above 1 with --length-penalty {length_penalty:g}. Received: --beam-width 1")


def with_options_of(options: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates a command whose first parameter is an instance of a dataclass: each field becomes an option of the command.

    Args:
        options: the dataclass. A field is annotated as a parameter of a typer command.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[1:]
        hints = get_type_hints(options, include_extras=True)
        fields = [
            parameter.replace(annotation=hints[name]) for name, parameter in inspect.signature(options).parameters.items()
        ]

        def call(**values: Any) -> None:
            check_ranges(options, values)
            command(options(**{name: values.pop(name) for name in hints}), **values)

        call.__name__, call.__doc__ = command.__name__, command.__doc__
        call.__annotations__ = hints | {parameter.name: parameter.annotation for parameter in own}
        call.__signature__ = inspect.Signature([*fields, *own])  # pyright: ignore[reportFunctionMemberAccess]  # inspect reads it
        return call

    return decorate
