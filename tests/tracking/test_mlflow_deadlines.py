"""A request to a tracking server ends, whatever the server does with its bytes."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

from pvt_bench.errors import InputError
from pvt_bench.report.sources.server import Server
from pvt_bench.tracking.store import Store

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(autouse=True)
def one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout of a read; a request as a whole has three seconds."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that treats each connection in its own way."""

    def treat(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            answer(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=treat, args=hole.accept()[:1], daemon=True).start()

    with closing(socket.create_server(("127.0.0.1", 0))) as hole:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{hole.getsockname()[1]}"


def dribble(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x")
        time.sleep(0.2)


def dribble_headers(connection: socket.socket) -> None:
    connection.sendall(OK + b"A: ")
    dribble(connection)


def dribble_a_body(connection: socket.socket) -> None:
    connection.sendall(OK + b"Content-Length: 1000000\r\n\r\n")
    dribble(connection)


def dribble_without_end(connection: socket.socket) -> None:
    connection.sendall(OK + b"Connection: close\r\n\r\n")
    dribble(connection)


def redirect_slowly(connection: socket.socket) -> None:
    connection.recv(65536)
    time.sleep(0.7)
    moved = b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n"
    connection.sendall(moved + b"Connection: close\r\n\r\n")


@pytest.mark.parametrize(
    "answer", [dribble_headers, dribble_a_body, dribble_without_end, redirect_slowly]
)
def test_an_answer_that_never_ends_is_cut(answer: Callable[[socket.socket], None]) -> None:
    with serving(answer) as uri:
        began = time.monotonic()
        with pytest.raises(MlflowException, match="no whole answer within 3 s"):
            Store(uri, None).experiment("any")
        assert 2 < time.monotonic() - began < 6


def test_the_report_is_not_held_up_either() -> None:
    with serving(dribble_headers) as uri:
        began = time.monotonic()
        with pytest.raises(InputError, match="no whole answer within 3 s"):
            Server(uri).load()
        assert time.monotonic() - began < 6


def read_slowly(connection: socket.socket) -> None:
    """Take a body of 800 kB in about five seconds, and confirm it."""
    left = 800_000
    while left > 0:
        left -= len(connection.recv(16384))
        time.sleep(0.1)
    connection.sendall(OK + b"Content-Length: 0\r\n\r\n")


def test_a_large_upload_to_a_slow_server_arrives(tmp_path: Path) -> None:
    Store("http://127.0.0.1:1", None)
    (tmp_path / "large").write_bytes(bytes(800_000))
    with serving(read_slowly) as uri:
        began = time.monotonic()
        HttpArtifactRepository(uri).log_artifact(str(tmp_path / "large"))
        assert time.monotonic() - began > 3, "longer than a request without a body may take"


def test_an_idle_connection_that_was_cut_is_opened_again() -> None:
    def answer(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(OK + b"Content-Length: 2\r\n\r\n{}")

    with serving(answer) as uri:
        Store(uri, None)
        client = MlflowClient(uri)
        assert client.search_experiments() == []
        time.sleep(3.2)
        assert client.search_experiments() == []
