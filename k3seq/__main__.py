"""`python -m k3seq` is `k3seq`."""

import sys

from k3seq.cli import main

if __name__ == "__main__":
    sys.exit(main())
