"""A small client of Label Studio's HTTP API, on the standard library.

Sources: the API reference of Label Studio (https://api.labelstud.io) and the behavior of release
1.23.2, against which `tests/live` runs. Every failure is one line of a class in
`label_studio_answers`; `ServerDown` is
the only one that may pass by itself.

The token goes into the header `Authorization` and nowhere else: it is in no text of an error, and a
redirection, which could carry it to another server, is refused.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from pydantic import TypeAdapter

from experiments.annotation.label_studio_answers import (
    ACCESS,
    CHANGES,
    IMPORTED,
    PROJECT,
    PROJECTS,
    TASK,
    TASKS,
    UPLOADS,
    VERSION,
    LabelStudioError,
    NotThere,
    Project,
    ServerDown,
    Task,
    WrongToken,
    WrongVersion,
)
from experiments.data.labels import UnusableFile
from experiments.data.untrusted import MAX_BYTES, checked, parse_json

T = TypeVar("T")

TESTED = "1.23.2"
OLDEST = (1, 20)
"""Releases before 1.20 were not tried."""
TIMEOUT = 60.0
"""Seconds without a byte from the server. An import of 100 tasks takes about one."""
PAUSES = (0.5, 1.0, 2.0)
"""Seconds before each repetition of a request that may be repeated."""
PASSING = (429, 500, 502, 503, 504)
"""HTTP states that may pass: too many requests, and a server or proxy that is starting."""
PAGE = 100
"""Tasks in one answer of the server; it sends at most 100 with their annotations."""
SHORT_PAGE = 1000
"""Tasks in one answer that has no more than their numbers and times."""
BEGUN = {
    "filters": {
        "conjunction": "and",
        "items": [
            {"filter": "filter:tasks:draft_exists", "operator": "equal", "type": "Boolean",
             "value": True},
        ],
    }
}  # fmt: skip
"""A filter of tasks."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _NoRedirection(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Client:
    """Requests to one server.

    Args:
        url: Address of the server, without a path of its API.
        key: A user's access token: a legacy one, or a personal one (a JSON Web Token).
        timeout: Seconds without an answer after which a request counts as failed.
        pauses: Seconds before each repetition of a request that may be repeated.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float = TIMEOUT,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self.url, self._key = url.rstrip("/"), key
        self._timeout, self._pauses = timeout, tuple(pauses)
        self._access = ""
        handlers: list[Any] = [_NoRedirection()]
        if urlsplit(self.url).hostname in LOOPBACK:
            handlers.append(ProxyHandler({}))
        self._opener: OpenerDirector = build_opener(*handlers)

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    # -- what the server offers -------------------------------------------------------------------

    def check(self) -> str:
        """Return the release of the server, once it is new enough and accepts the token.

        Raises:
            LabelStudioError: One of its classes.
        """
        other = f"{self.url} answers, but not as Label Studio does: check oracle.url"
        try:
            release = self._get("/api/version", VERSION).release
        except (NotThere, WrongVersion):
            raise WrongVersion(other) from None
        numbers = re.match(r"(\d+)\.(\d+)", release)
        if not numbers or (int(numbers[1]), int(numbers[2])) < OLDEST:
            raise WrongVersion(
                f"{self.url} is Label Studio {release}; {'.'.join(map(str, OLDEST))} or newer is "
                f"needed ({TESTED} is tested)"
            )
        try:
            self._send("GET", "/api/current-user/whoami")
        except NotThere:
            raise WrongVersion(other) from None
        return release

    def project(self, number: int) -> Project:
        """Return a project."""
        return self._get(f"/api/projects/{number}/", PROJECT)

    def projects(self) -> list[Project]:
        """Return the projects that the user may see."""
        found: list[Project] = []
        page = 1
        while True:
            answer = self._get(f"/api/projects/?page={page}&page_size={PAGE}", PROJECTS)
            found += answer.results
            if answer.next is None:
                return found
            page += 1

    def create_project(self, title: str, *, label_config: str, description: str) -> Project:
        """Create a project that serves the lowest score of a prediction first."""
        content = {
            "title": title,
            "label_config": label_config,
            "description": description,
            "sampling": "Uncertainty sampling",
        }
        return self._taken(self._send("POST", "/api/projects/", content), PROJECT)

    def change_project(self, number: int, content: Mapping[str, Any]) -> None:
        """Change fields of a project."""
        self._send("PATCH", f"/api/projects/{number}/", content)

    def tasks(self, project: int) -> list[Task]:
        """Return every task of a project, with annotations and predictions."""
        found: dict[int, Task] = {}
        page = 1
        while True:
            where = {"project": project, "page": page, "page_size": PAGE, "fields": "all"}
            try:
                answer = self._get(f"/api/tasks?{urlencode(where)}", TASKS)
            except NotThere:
                if page == 1:
                    raise
                return list(found.values())  # a task was deleted meanwhile: there is no such page
            found.update((task.id, task) for task in answer.tasks)
            if not answer.tasks or page * PAGE >= answer.total:
                return list(found.values())
            page += 1

    def changes(self, project: int) -> dict[int, str]:
        """Return when each task of a project changed last, by its number."""
        return self._changes(project)

    def begun(self, project: int) -> set[int]:
        """Return the numbers of tasks with an unfinished annotation that somebody has saved.

        It does not change the time of a task, and a task lists those of the token's user only.
        """
        return set(self._changes(project, query=json.dumps(BEGUN)))

    def _changes(self, project: int, **query: str) -> dict[int, str]:
        found: dict[int, str] = {}
        page = 1
        while True:
            where = {
                "project": project, "page": page, "page_size": SHORT_PAGE,
                "include": "id,updated_at", **query,
            }  # fmt: skip
            try:
                answer = self._get(f"/api/tasks?{urlencode(where)}", CHANGES)
            except NotThere:
                if page == 1:
                    raise
                return found  # as in `tasks`
            found.update((one.id, one.updated_at) for one in answer.tasks)
            if not answer.tasks or len(found) >= answer.total:
                return found
            page += 1

    def task(self, number: int) -> Task:
        """Return a task, with annotations and predictions."""
        return self._get(f"/api/tasks/{number}/", TASK)

    def import_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Import tasks. After `ServerDown` they may be there or not: list the tasks again."""
        self._send("POST", f"/api/projects/{project}/import", list(tasks))

    def delete_task(self, number: int) -> None:
        """Delete a task."""
        self._send("DELETE", f"/api/tasks/{number}/")

    def upload(self, project: int, name: str, data: bytes) -> str:
        """Upload an image without making a task of it, and return its address on the server."""
        boundary = uuid.uuid4().hex
        # The server keeps the name as the end of its own; bytes that a header cannot hold go.
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", name.rpartition("/")[2]) or "image"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{plain}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        answer = self._send(
            "POST", f"/api/projects/{project}/import?commit_to_project=false", body,
            content_type=f"multipart/form-data; boundary={boundary}",
        )  # fmt: skip
        (number,) = self._taken(answer, IMPORTED).file_upload_ids or (0,)
        ids = quote(json.dumps([number]))
        uploads = self._get(f"/api/projects/{project}/file-uploads?ids={ids}", UPLOADS)
        if len(uploads) != 1:
            raise LabelStudioError(f"{self.url} did not keep the image {name}")
        return "/data/" + uploads[0].file.removeprefix("/").removeprefix("data/")

    def create_prediction(self, content: Mapping[str, Any]) -> None:
        """Add a draft to the task that its content names."""
        self._send("POST", "/api/predictions/", content)

    def change_prediction(self, number: int, content: Mapping[str, Any]) -> None:
        """Change fields of a draft; its score is the task's place in the queue."""
        self._send("PATCH", f"/api/predictions/{number}/", content)

    # -- transport --------------------------------------------------------------------------------

    def _get(self, path: str, adapter: TypeAdapter[T]) -> T:
        return self._taken(self._send("GET", path), adapter)

    def _taken(self, answer: bytes, adapter: TypeAdapter[T]) -> T:
        try:
            return checked(adapter, parse_json(answer))
        except UnusableFile as error:
            raise WrongVersion(
                f"{self.url} gives an answer of another shape than Label Studio {TESTED}: {error}"
            ) from None

    def _send(
        self,
        method: str,
        path: str,
        content: object = None,
        *,
        content_type: str = "application/json",
    ) -> bytes:
        """Send a request; repeat it after a passing failure unless it could then count twice.

        Raises:
            LabelStudioError: One of its classes.
        """
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        for pause in (*self._pauses, None):
            try:
                return self._once(method, path, None if content is None else body, content_type)
            except ServerDown:
                if method == "POST" or pause is None:
                    raise
                time.sleep(pause)
            except WrongToken:
                if not self._access or pause is None:
                    raise
                self._access = ""  # it has run out: get another
        raise AssertionError("the loop ends in a return or an error")

    def _once(self, method: str, path: str, body: bytes | None, content_type: str) -> bytes:
        headers = {"Authorization": self._authorization()}
        return self._exchange(method, path, body, {**headers, "Content-Type": content_type})

    def _authorization(self) -> str:
        """Return the header of a legacy token, or of the access that a personal token gives."""
        if self._key.count(".") != 2:
            return f"Token {self._key}"
        if not self._access:
            answer = self._exchange(
                "POST", "/api/token/refresh", json.dumps({"refresh": self._key}).encode(),
                {"Content-Type": "application/json"},
            )  # fmt: skip
            self._access = self._taken(answer, ACCESS).access
        return f"Bearer {self._access}"

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> bytes:
        request = Request(self.url + path, data=body, method=method, headers=dict(headers))
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                data: bytes = answer.read(MAX_BYTES + 1)
                # A read with a limit does not fail where the connection ends too early.
                if answer.length and len(data) <= MAX_BYTES:
                    raise ServerDown(f"{self.url} does not answer: it broke off an answer")
        except HTTPError as error:
            with error:
                raise self._refused(method, path, error.code, error) from None
        except (URLError, http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", None) or error
            text = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
            raise ServerDown(f"{self.url} does not answer: {text}") from None
        if len(data) > MAX_BYTES:
            raise LabelStudioError(f"{self.url}{path}: an answer of more than {MAX_BYTES} bytes")
        return data

    def _refused(self, method: str, path: str, code: int, error: HTTPError) -> LabelStudioError:
        bare = path.partition("?")[0]
        if code in PASSING:
            return ServerDown(f"{self.url} reports HTTP {code} for {bare}")
        if code == 403:
            return WrongToken(
                f"{self.url} does not let the token's user {method} {bare} (HTTP 403): use the "
                "token of a user who may manage the project"
            )
        if code == 401:
            return WrongToken(
                f"{self.url} does not accept the token (HTTP 401 for {bare}): copy it from "
                "Account & Settings of Label Studio into LABEL_STUDIO_API_KEY"
            )
        if code == 404:
            return NotThere(f"{self.url} has no {bare}, or the token's user may not see it")
        if 300 <= code < 400:
            place = str(error.headers.get("Location", "another address"))
            return LabelStudioError(f"{self.url} redirects to {place}: set oracle.url to that")
        try:
            detail = " ".join(error.read(2000).decode("utf-8", "replace").split())[:300]
        except (http.client.HTTPException, OSError):
            detail = ""
        detail = detail.replace(self._key, "...") if self._key else detail
        return LabelStudioError(f"{self.url} refuses {method} {bare} (HTTP {code}): {detail}")
