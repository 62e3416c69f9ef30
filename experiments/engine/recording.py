"""Work on a GPU that is recorded once as a CUDA graph and then launched as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
Stream = torch.cuda.Stream


class CudaRecording(Generic[T]):
    """A CUDA graph of some work.

    Args:
        work: Called once, to be recorded; nothing is computed then. It runs in the current stream,
            which must not be the default one, and has run there before.
        generator: The generator that `work` draws from; every replay draws further numbers.
    """

    def __init__(self, work: Callable[[], T], generator: torch.Generator) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(generator)
        # Threads that load the next batches may allocate memory meanwhile.
        with torch.cuda.graph(
            self._graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"
        ):
            self._result = work()

    def replay(self) -> T:
        """Do the work on what its inputs hold now; the next replay overwrites the result."""
        self._graph.replay()
        return self._result


def new_stream(device: torch.device) -> Stream:
    """Return a stream of a GPU other than its default one."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextmanager
def within(stream: Stream) -> Iterator[None]:
    """Work in a stream, after what the current one has been given, and before what comes later."""
    usual = torch.cuda.current_stream(stream.device)
    stream.wait_stream(usual)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        usual.wait_stream(stream)
