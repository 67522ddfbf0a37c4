"""The service under load: wrk on loopback, single-user requests, latencies and throughput.

``python benchmarks/service.py [--out FILE]`` makes a model of 100,000 items and 128 factors, serves
it, has `wrk` ask for random users with several numbers of connections, and prints a table. Its
vectors are random, in which no search finds structure; with ``--fitted`` they are the factors of a
fit. Client and service share the machine's cores.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import numpy as np

import recfuse
from recfuse.bench.interactions import draw_interactions, user_items
from recfuse.bench.machine import describe_machine

PER_USER = 50  # interactions, of a fit

LUA = """
local n = %d
request = function()
  return wrk.format("POST", "/recommend", nil, '{"user":' .. math.random(0, n - 1) .. ',"k":10}')
end
done = function(summary, latency, requests)
  io.write(string.format("JSON {\\"requests\\":%%d,\\"seconds\\":%%f,\\"errors\\":%%d",
    summary.requests, summary.duration / 1e6,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
    + summary.errors.timeout))
  for _, p in pairs({50, 90, 99, 99.9}) do
    io.write(string.format(",\\"p%%g\\":%%f", p, latency:percentile(p) / 1000))
  end
  io.write("}\\n")
end
"""


def make(path: Path, n_users: int, n_items: int, factors: int) -> None:
    """Save a model of normal vectors."""
    rng = np.random.default_rng(0)
    model = recfuse.AlternatingLeastSquares(factors=factors)
    model.user_factors_ = rng.standard_normal((n_users, factors), np.float32)
    model.item_factors_ = rng.standard_normal((n_items, factors), np.float32)
    model.user_biases_ = np.zeros(n_users, np.float32)
    model.item_biases_ = np.zeros(n_items, np.float32)
    model.global_mean_ = 0.0
    model.save(path)


def fit(path: Path, n_users: int, n_items: int, factors: int) -> None:
    """Save a model of generated interactions."""
    histories = user_items(draw_interactions(n_users, n_items, PER_USER * n_users, 0))
    recfuse.AlternatingLeastSquares(factors=factors, random_state=0).fit(histories).save(path)


def serve(path: Path, *arguments: str) -> tuple[subprocess.Popen[str], int]:
    """Start the service on a free port."""
    command = [sys.executable, "-m", "recfuse", "serve", str(path), "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"running on http://127.0.0.1:(\d+)", line)
        if found:
            return process, int(found[1])
    raise RuntimeError("the service has not started")


def load(port: int, script: Path, connections: int, seconds: int) -> dict[str, float]:
    """Let wrk ask, and return what it counted; times in milliseconds."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"], check=True, capture_output=True, text=True
    )
    found = re.search(r"JSON (\{.*\})", done.stdout)
    assert found is not None, done.stdout
    return {"connections": connections, **json.loads(found[1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--factors", type=int, default=128)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 32, 64, 128])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--fitted", action="store_true", help="factors of a fit, not random ones")
    parser.add_argument("--model", type=Path, help="made where it is not there")
    parser.add_argument("--serve", default="", help="further options of the service")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or Path(folder) / "model.recfuse"
        if not model.exists():
            (fit if options.fitted else make)(model, options.users, options.items, options.factors)
        script = Path(folder) / "ask.lua"
        script.write_text(LUA % options.users)
        process, port = serve(model, "--no-feedback", *options.serve.split())
        try:
            load(port, script, 32, 2)  # pages, the screen's choice
            rows = [load(port, script, c, options.seconds) for c in options.connections]
            url = f"http://127.0.0.1:{port}/metrics"
            with urllib.request.urlopen(url) as answer:
                numbers = answer.read().decode()
        finally:
            process.terminate()
            process.wait(60)
    sums = dict(re.findall(r"^(recfuse_\w+_(?:sum|count)(?:\{.*?\})?) (\S+)$", numbers, re.M))
    print("| connections | recommendations/s | p50 ms | p99 ms | p99.9 ms | errors |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        rate = row["requests"] / row["seconds"]
        print(
            f"| {row['connections']} | {rate:,.0f} | {row['p50']:.1f} | {row['p99']:.1f} "
            f"| {row['p99.9']:.1f} | {row['errors']} |"
        )
    sizes = {"items": options.items, "users": options.users, "factors": options.factors, "k": 10}
    sizes["fitted"] = options.fitted
    if options.out:
        found = {"machine": describe_machine(0), "sizes": sizes, "rows": rows, "sums": sums}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
