"""The memory that a program takes, measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

_PROLOGUE = """
import json, re, resource, sys
from pathlib import Path
import numpy as np
import recfuse

def status(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

class peak:
    'with peak() as p: ...; p.n_bytes: the most that the block had, beyond what was there before'
    def __enter__(self):
        Path("/proc/self/clear_refs").write_text("5")
        self.before = status("VmRSS")
        return self
    def __exit__(self, *_):
        self.n_bytes = status("VmHWM") - self.before

def limit_data(n_bytes):
    'private memory beyond what there is is refused; mapped files do not count'
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (status("VmData") + n_bytes, hard))
"""


def measure(code: str, **environment: str) -> Any:
    """Run `code` after the prologue above; return what it prints as JSON in its last line."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROLOGUE + textwrap.dedent(code)],
        # Freed blocks of this size go back to the system at once: only what is in use is measured.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
