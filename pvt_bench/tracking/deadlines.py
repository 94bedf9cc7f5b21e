"""An end for each request to a tracking server, however slowly its answer comes.

A timeout of requests is for one read or write of the socket: a server that sends a byte a second
never runs into it. Importing this module imports MLflow.
"""

import math
import socket
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from typing import Any, cast

import mlflow.utils.request_utils as mlflow_requests
import requests
from requests.adapters import HTTPAdapter
from requests.utils import super_len
from urllib3.connection import HTTPConnection, HTTPSConnection

# A request may take so many of its timeouts, and the time that a slow line needs for its body.
TIMEOUTS = 3
SLOW_BYTES_PER_S = 100_000

_plain_session = mlflow_requests._get_request_session
_end: ContextVar[float] = ContextVar("end", default=math.inf)


class Ended(Exception):
    """The time of a request is over; no OSError, which urllib3 would try again."""


def end_requests() -> None:
    """Give each request that MLflow makes in this process an end."""
    mlflow_requests._get_request_session = _session


def _session(*args: Any, **options: Any) -> requests.Session:
    return _with_ends(_plain_session(*args, **options))


@cache
def _with_ends(plain: requests.Session) -> requests.Session:
    session = _Session()
    retries = cast(HTTPAdapter, plain.get_adapter("http://")).max_retries
    adapter = _Adapter(max_retries=retries)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class _Session(requests.Session):
    """The end holds for a request with its redirects and its body."""

    def request(  # type: ignore[override]
        self, method: str, url: str, *, timeout: float, data: Any = None, **options: Any
    ) -> requests.Response:
        sending = super_len(data) / SLOW_BYTES_PER_S if data is not None else 0
        allowed = TIMEOUTS * timeout + sending
        end = time.monotonic() + allowed
        token = _end.set(end)
        try:
            # The answer may be waited for while the system still sends what it has buffered.
            waits = (timeout, timeout + sending)
            response = super().request(method, url, timeout=waits, data=data, **options)
            # A body that ends with its connection seems whole when that was cut.
            if time.monotonic() >= end:
                raise Ended
            return response
        except Exception as error:
            # What a cut connection raises depends on what was under way.
            if time.monotonic() < end:
                raise
            raise requests.Timeout(f"no whole answer within {allowed:.0f} s") from error
        finally:
            _end.reset(token)


class _Connection(HTTPConnection):
    """Cut when the time of its request is over. An idle one that is cut is opened again."""

    _timer: threading.Timer | None = None

    def connect(self) -> None:
        super().connect()
        self._arm()

    def request(self, *args: Any, **options: Any) -> None:
        self._arm()
        super().request(*args, **options)

    def _arm(self) -> None:
        # Not when it is closed: a body that ends with its connection is read afterwards.
        if self._timer is not None:
            self._timer.cancel()
        left = _end.get() - time.monotonic()
        if left <= 0:
            raise Ended
        if math.isfinite(left) and self.sock is not None:
            self._timer = threading.Timer(left, _cut, [self.sock])
            self._timer.daemon = True
            self._timer.start()


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):  # Closed meanwhile.
        connection.shutdown(socket.SHUT_RDWR)


class _SecureConnection(_Connection, HTTPSConnection):
    pass


class _Adapter(HTTPAdapter):
    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **options)
        pool.ConnectionCls = _SecureConnection if pool.scheme == "https" else _Connection
        return pool
