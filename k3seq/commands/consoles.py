"""The consoles that commands print on. They print text as it is: a path such as `x[red].tsv` is never read as rich markup."""

from rich.console import Console
from rich.progress import Progress, ProgressColumn

WIDTH = 140  # of tables in a file or pipe; wide enough for all checks of parity


def results_console() -> Console:
    """Standard output. Tables are at least `WIDTH` wide where it is not a terminal."""
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = max(WIDTH, console.width)
    return console


def log_console() -> Console:
    """Standard error. Lines break at the width of a terminal and nowhere else."""
    console = Console(stderr=True, markup=False, highlight=False)
    console.soft_wrap = not console.is_terminal
    return console


def progress_bar(log: Console, *columns: ProgressColumn) -> Progress:
    """A progress bar that is gone at the end; it is shown on a terminal only."""
    return Progress(*columns, console=log, transient=True, disable=not log.is_terminal)
