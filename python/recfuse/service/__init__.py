"""Recommendations over HTTP: what ``recfuse serve`` runs. Needs the extra ``serve``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recfuse.service.options import Options

__all__ = ["create_app", "serve"]


def serve(options: Options) -> int:
    """Serve a model file until a signal ends it; return the exit status.

    Parameters
    ----------
    options : Options
        What the command line gives.

    Returns
    -------
    int
        0 after a graceful end.

    Raises
    ------
    ImportError
        Without the extra ``serve``.
    FormatError, OSError, ValueError
        If the model, the journal, the titles or the address cannot be used.
    """
    _check_extra()
    from recfuse.service.server import run

    return run(options)


def create_app(options: Options) -> Any:
    """Return the service as an ASGI application, for a server or a test of one's own.

    Returns
    -------
    ASGI application
        Its lifespan opens the model and the journal.

    Raises
    ------
    ImportError
        Without the extra ``serve``.
    """
    _check_extra()
    from recfuse.service.app import create_app as create

    return create(options)


def _check_extra() -> None:
    try:
        import fastapi  # noqa: F401
        import httptools  # noqa: F401
        import orjson  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"serve: needs {error.name}, which the extra brings: pip install 'recfuse[serve]'"
        ) from error
