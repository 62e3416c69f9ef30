"""The run folder's log.txt: the messages of a run and the reason why it stopped."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from al_core.errors import ActiveLearningError
from experiments.engine.lockstep import current
from experiments.settings.terminal import PlainFormatter, log_to_stdout

logger = logging.getLogger(__name__)

EXPECTED = (ActiveLearningError, OSError)
"""Errors whose text is one clear line; for others the log keeps the traceback."""


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the name is logging's
        """Raise the error, so that a full disk stops the run without a traceback on stderr."""
        raise


@contextmanager
def logged_to(file: Path | None) -> Iterator[None]:
    """Write log lines to the run's log.txt as well, and print them above progress bars.

    Args:
        file: The log file. None for a process that is not the first: it reports errors only.
    """
    # A terminal that nobody reads any more, and W&B's own log on a full disk, would print a
    # traceback for each line that cannot be written. The handler of log.txt raises by itself.
    logging.raiseExceptions = False
    root = logging.getLogger()
    level = root.level
    if file is None:
        root.setLevel(logging.ERROR)
        try:
            yield
        finally:
            root.setLevel(level)
        return
    if not root.handlers:  # Hydra configures logging in its own process only
        log_to_stdout()
    handler = _LogFile(file, encoding="utf-8")
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    lockstep = current()
    if lockstep is not None:
        handler.addFilter(lockstep.filter_of_others())
    try:
        # It exchanges the handlers of the process, and runs side by side have no bars.
        with logging_redirect_tqdm() if lockstep is None else nullcontext():
            yield
    except Exception as error:
        trace = None if isinstance(error, EXPECTED) else sys.exc_info()
        with suppress(OSError):  # the disk may be full
            handler.handle(
                logger.makeRecord(
                    logger.name, logging.ERROR, __file__, 0, "stopped: %s", (error,), trace
                )
            )
        raise
    finally:
        root.removeHandler(handler)
        handler.close()
