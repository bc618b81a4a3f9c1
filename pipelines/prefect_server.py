"""Whether the Prefect server that PREFECT_API_URL names answers."""

import os

from vlpipe.stores.errors import EnvironmentLacks

_PATIENCE_S = 5.0


def require_server(url: str) -> None:
    """Raises EnvironmentLacks when no Prefect server answers at `url`."""
    import httpx

    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=_PATIENCE_S).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EnvironmentLacks(
            f"no Prefect server answers at {url}: {error}",
            hint="`prefect server start`, or unset PREFECT_API_URL, or --no-prefect",
        ) from error


def configured_server() -> str | None:
    """The address in PREFECT_API_URL, None when commands are to run without a server."""
    return os.environ.get("PREFECT_API_URL") or None
