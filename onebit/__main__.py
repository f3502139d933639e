"""``python -m onebit`` and ``torchrun -m onebit``: the command `onebit`."""

import sys

from onebit.leaderboards.cli import main

if __name__ == "__main__":
    sys.exit(main())
