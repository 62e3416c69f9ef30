"""A way to a server that can be cut, or that loses answers, as a network does."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

HOST = "127.0.0.1"


class Network:
    """A port that passes requests on to a server.

    Args:
        port: The server's.
        cuts: Tells by the first line of a request whether it ends in mid-transfer; the server
            gets a part of it.
        loses: Tells likewise whether the server gets the request and its answer is lost.
        shortens: Tells likewise whether the head of the answer arrives without its body.
    """

    def __init__(
        self,
        port: int,
        *,
        cuts: Callable[[str], bool],
        loses: Callable[[str], bool],
        shortens: Callable[[str], bool],
    ) -> None:
        network = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                network._pass_on(self.rfile, self.connection)

        self._port, self._cuts, self._loses, self._shortens = port, cuts, loses, shortens
        self._listening = socketserver.ThreadingTCPServer((HOST, 0), Handler)
        self._listening.daemon_threads = True
        self.url = f"http://{HOST}:{self._listening.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._listening.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listening.shutdown()
        self._listening.server_close()

    def _pass_on(self, request: Any, client: socket.socket) -> None:
        """Pass one request on, whose connection ends with it."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = request.readline()
            if not line:
                return
            head += line
        lengths = [
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        body = request.read(sum(lengths))
        first = head.partition(b"\r\n")[0].decode()
        with socket.create_connection((HOST, self._port)) as server:
            if self._cuts(first):
                server.sendall(head + body[: len(body) // 2])
                return
            server.sendall(head + body)
            answer = b"".join(iter(lambda: server.recv(1 << 16), b""))
        if self._shortens(first):
            answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        if not self._loses(first):
            client.sendall(answer)
