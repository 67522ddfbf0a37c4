"""The server: uvicorn, with a protocol of its own, and signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from typing import Any

import uvicorn

from recfuse.service.app import create_app
from recfuse.service.http import JsonLines
from recfuse.service.options import Options
from recfuse.service.protocol import service_protocol

__all__ = ["run"]


def run(options: Options) -> int:
    """Serve until a signal ends it; return the exit status."""
    # A thread that has searched wants the interpreter back soon, not after 5 ms.
    sys.setswitchinterval(0.0005)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    app = create_app(options)
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        http=service_protocol(app, options),
        loop="auto",
        ws="none",
        lifespan="on",
        access_log=False,
        proxy_headers=False,
        log_config=None,
        server_header=False,
        date_header=True,
        timeout_keep_alive=int(max(options.request_timeout, 1)),
        timeout_graceful_shutdown=int(max(options.shutdown_timeout, 1)),
        backlog=2048,
    )
    # uvicorn ends gracefully and then sends itself the signal again, for a parent to see.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server = _Server(config)
    server.run()
    return 0 if server.started else 3


class _Server(uvicorn.Server):
    """Raises what keeps it from answering, which uvicorn would log as a traceback.

    Reloads on SIGHUP, from before it says that it runs: the signal would end it otherwise.
    """

    async def startup(self, sockets: Any = None) -> None:
        service = self.config.loaded_app.service
        with contextlib.suppress(NotImplementedError, ValueError):  # not in the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, service.reload_soon)
        await _try_address(self.config.host, self.config.port)  # before a large model is opened
        await service.start()
        await super().startup(sockets)
        # What is there now stays: looking through all of it for garbage stops all for 40 ms.
        gc.collect()
        gc.freeze()


async def _try_address(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
    except OSError as error:
        # Names that are not found have numbers of their own.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise OSError(
            f"serve: host and port must be free to listen on; got {host}:{port}: {why}"
        ) from error
    server.close()
