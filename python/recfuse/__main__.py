"""``python -m recfuse`` is the command ``recfuse``."""

from recfuse.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
