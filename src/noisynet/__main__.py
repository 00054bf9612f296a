"""Entry point of `python -m noisynet`: the command line."""

import sys

from .cli import main

# Worker processes import this module too.
if __name__ == "__main__":
    sys.exit(main())
