"""How a process of Mailfleet, operator or sender, serves its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from prometheus_client import ProcessCollector, disable_created_metrics, start_http_server

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = structlog.get_logger()


def serve(registry: CollectorRegistry, port: int | None) -> bool:
    """Serve /metrics, with the process's own figures, from a thread that ends with the process.

    Returns:
        whether it is served: not without a port, nor on one that is taken, which must not keep anybody from working.
    """
    if port is None:
        return False
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more each, of use to nobody here
    ProcessCollector(registry=registry)
    try:
        start_http_server(port, registry=registry)
    except OSError as error:
        log.warning("metrics are not served", port=port, why=str(error))
        return False
    return True
