"""An ask that Ollama did not answer: counted as what it is, and refused in the words of the API it came by.

Refuses to try again: what may be tried was tried where the ask was sent.
"""

from __future__ import annotations

from aiohttp import web

from cacheproxy.edge import headers
from cacheproxy.edge.passthrough import fault_of
from cacheproxy.edge.plain import Plain, error_reply
from cacheproxy.errors import UpstreamError
from cacheproxy.metrics import Metrics
from cacheproxy.model import Plan


def unanswered(request: web.BaseRequest, error: UpstreamError, plan: Plan, metrics: Metrics) -> Plain:
    """The reply to an ask that ended in `error`."""
    fault = fault_of(error)
    if fault is not None:
        metrics.fault(fault)
    refusal = error_reply(request.path, error.status, str(error))
    refusal.add_headers(headers.failed(plan))
    return refusal
