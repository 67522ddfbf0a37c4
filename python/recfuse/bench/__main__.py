"""``python -m recfuse.bench`` is the command ``recfuse bench``."""

import sys

from recfuse.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["bench", *sys.argv[1:]]))
