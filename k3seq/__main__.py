"""The script `k3seq`, and `python -m k3seq`."""

import sys

from k3seq.errors import MissingPackage


def main() -> int:
    """Runs the command line and returns its exit code; one line on stderr where its packages are not installed."""
    try:
        from k3seq.cli import main as command_line
    except MissingPackage as error:
        print(f"k3seq: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("k3seq: interrupted", file=sys.stderr)
        return 130
    return command_line()


if __name__ == "__main__":
    sys.exit(main())
