"""A client of a real server that counts its requests."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from experiments.annotation.label_studio_client import Client
from experiments.annotation.local_server import LocalServer


class Observed(Client):
    """A client that counts requests.

    Attributes:
        sent: The paths of its requests.
        after: Something to happen once, after a request whose path matches a pattern.
    """

    def __init__(self, server: LocalServer) -> None:
        super().__init__(server.url, server.key)
        self.sent: list[str] = []
        self.after: tuple[str, Callable[[], object]] | None = None

    def _send(self, method: str, path: str, *rest: Any, **named: Any) -> bytes:
        self.sent.append(path)
        answer = super()._send(method, path, *rest, **named)
        if self.after and re.search(self.after[0], path):
            (_, happens), self.after = self.after, None
            happens()
        return answer

    def count(self, pattern: str) -> int:
        """Return how many requests match a pattern."""
        return sum(bool(re.search(pattern, path)) for path in self.sent)
