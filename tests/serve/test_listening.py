"""Where the server listens: any address of the machine, any port, and one clear error where it cannot."""

import socket
from pathlib import Path

import httpx2
import pytest
from processes import until
from served import Served

from serve.server import listen


@pytest.mark.parametrize("host, url", [("localhost", "localhost"), ("127.0.0.2", "127.0.0.2"), ("::1", "[::1]")])
def test_any_address_of_the_machine(host: str, url: str, published: Path) -> None:
    server = Served(published, "--host", host)
    server.start()
    try:
        until(lambda: answers(f"http://{url}:{server.port}/health/live"), 40)
    finally:
        server.stop()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


@pytest.mark.parametrize(
    "host, expected",
    [("192.0.2.1", "assign requested address"), ("no.such.host.invalid", "--host no.such.host.invalid")],
)
def test_an_unavailable_address_is_refused(host: str, expected: str, published: Path) -> None:
    server = Served(published, "--host", host)
    server.start()
    assert server.process.wait(30) == 2
    (line,) = server.output().splitlines()
    assert line.startswith("error: ") and expected in line


def test_port_0_is_a_free_one_which_the_log_names(published: Path) -> None:
    server = Served(published, "--port", "0")
    server.start()
    try:
        until(lambda: "http://127.0.0.1:" in server.output())
        port = int(server.output().split("http://127.0.0.1:")[1].split()[0])
        assert port != 0
        until(lambda: answers(f"http://127.0.0.1:{port}/health/live"), 40)
    finally:
        server.stop()


def test_the_pieces_of_a_stream_do_not_wait_for_each_other() -> None:
    """Without TCP_NODELAY a small piece waits until the client has acknowledged the one before."""
    with listen("127.0.0.1", 0) as listener, socket.socket() as client:
        listener.listen()
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
