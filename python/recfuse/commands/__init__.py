"""What the command line does; `cli.py` only reads the arguments."""

from __future__ import annotations

from recfuse.commands.doctor import report
from recfuse.commands.files import verify
from recfuse.commands.tables import evaluate, fit, new_model, read_interactions, recommend

__all__ = ["evaluate", "fit", "new_model", "read_interactions", "recommend", "report", "verify"]
