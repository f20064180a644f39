"""`python -m kaleido_fast` is `kaleido-fast`."""

import sys

from kaleido_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
