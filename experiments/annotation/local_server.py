"""A server of Label Studio on this machine, in an environment of its own.

Label Studio pins libraries that this project needs in newer versions, so it is installed beside it
and run as a program. Its data, the password and the token of its one user lie in the folder `data`
of the environment, which only their owner may read.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from al_core.errors import ActiveLearningError
from al_core.files import write_bytes
from experiments.engine.processes import ended_with_this

VERSION = "1.23.2"
"""The release against which the live tests run."""
ENVIRONMENT = Path(".venv-label-studio")
USER = "annotator@example.com"
HOST = "127.0.0.1"
DATABASE = "label_studio.sqlite3"
SECONDS_TO_START = 900.0
"""The first start creates the database: 10 s to 30 s, and 240 s were seen on a busy machine."""
SECONDS_TO_STOP = 20.0


class LocalServer:
    """A server that this process starts and stops; use it as a context manager.

    Args:
        environment: Folder of the virtual environment; created by `install`.
        data: Folder of its database and images; None for `data` in the environment.

    Attributes:
        url: Its address.
        key: The token of its user.
        password: The password of its user `USER`.
    """

    def __init__(self, environment: Path = ENVIRONMENT, *, data: Path | None = None) -> None:
        self._environment = environment.absolute()
        self._data = (data or environment / "data").absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.key = self.password = ""

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.port}"

    @property
    def log_file(self) -> Path:
        """The output of the server."""
        return self._data / "server.log"

    @property
    def _program(self) -> Path:
        return self._environment / "bin" / "label-studio"

    def install(self, say: Callable[[str], None] = print) -> None:
        """Create the environment, unless it has this release already.

        Raises:
            ActiveLearningError: pip failed; its own output says why.
        """
        mark = self._environment / f".label-studio-{VERSION}"
        if mark.exists() and self._program.exists():
            return
        say(f"installing Label Studio {VERSION} into {self._environment} (1 GB, a few minutes) ...")
        python = self._environment / "bin" / "python"
        steps = [
            [sys.executable, "-m", "venv", str(self._environment)],
            [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-qq",
             "--no-input", f"label-studio=={VERSION}"],
        ]  # fmt: skip
        for step in steps:
            if subprocess.run(step, check=False).returncode:
                raise ActiveLearningError(
                    f"Label Studio could not be installed into {self._environment}: see above; "
                    "the same command tries again"
                )
        mark.touch()

    @property
    def is_new(self) -> bool:
        """True until its first start, which creates the database."""
        return not (self._data / DATABASE).exists()

    def start(self, *, port: int | None = None) -> None:
        """Start the server and return once it answers.

        Args:
            port: Its port; None for the last one if that is free, else for any free one.

        Raises:
            ActiveLearningError: It ends or does not answer in time; the text names its log file.
        """
        self._data.mkdir(parents=True, exist_ok=True)
        self._data.chmod(0o700)
        self.key = self._secret("token", 20)
        self.password = self._secret("password", 12)
        self.port = port or self._free_port()
        write_bytes(self._data / "port", str(self.port).encode())
        environment = {
            **os.environ,
            # In the environment and not on the command line, which every user of a machine sees.
            "LABEL_STUDIO_USERNAME": USER,
            "LABEL_STUDIO_PASSWORD": self.password,
            "LABEL_STUDIO_USER_TOKEN": self.key,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_BASE_DATA_DIR": str(self._data),
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "COLLECT_ANALYTICS": "False",  # nothing is reported to its makers
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "LATEST_VERSION_CHECK": "False",
        }
        environment.pop("LABEL_STUDIO_API_KEY", None)
        command = [
            str(self._program), "start", "--no-browser", "--internal-host", HOST,
            "--port", str(self.port),
        ]  # fmt: skip
        with open(self.log_file, "ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                cwd=self._data,
                start_new_session=True,  # Ctrl-C reaches this process alone, which stops the server
                preexec_fn=ended_with_this(signal.SIGTERM),
            )  # fmt: skip
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self) -> None:
        opener = build_opener(ProxyHandler({}))
        ends = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < ends:
            assert self._process is not None, "it was started"
            if self._process.poll() is not None:
                raise ActiveLearningError(f"Label Studio ended as it started: see {self.log_file}")
            with suppress(URLError, OSError), opener.open(f"{self.url}/health", timeout=5):
                return
            time.sleep(0.5)
        raise ActiveLearningError(
            f"Label Studio does not answer after {SECONDS_TO_START:g} s: see {self.log_file}"
        )

    def stop(self) -> None:
        """End the server. A second call does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> LocalServer:
        self.install()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _secret(self, name: str, num_bytes: int) -> str:
        """Return a random text that is kept from one start to the next."""
        file = self._data / name
        if not file.exists():
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="ascii") as written:
                written.write(secrets.token_hex(num_bytes))
        return file.read_text(encoding="ascii").strip()

    def _free_port(self) -> int:
        """Return the port of the last start, so that bookmarks stay valid, or a free one."""
        last = 0
        with suppress(OSError, ValueError):
            last = int((self._data / "port").read_text(encoding="ascii"))
        for port in (last, 0):
            with socket.socket() as tried, suppress(OSError):
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind((HOST, port))
                return int(tried.getsockname()[1])
        raise ActiveLearningError("no port of this machine is free")
