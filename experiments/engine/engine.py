"""Devices, precision and distributed processes, in plain torch.

There is one process for each device. Several processes are started from inside the job, once for
each run, by torch's elastic launcher; under `torchrun` they are those of its environment. Every
process runs the same job in step, and only the first one writes files.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.parallel import DistributedDataParallel

from al_core.errors import ActiveLearningError, InvalidSetting, require_positive
from experiments.engine.cores import num_cores
from experiments.engine.memory import host_memory_mb, keep_freed_memory, reset_peak_host_memory
from experiments.engine.processes import check_semaphores, end_with_parent, quiet_launcher
from experiments.engine.recording import Stream, new_stream, within
from experiments.engine.transfer import fits, pinned, to_device
from experiments.settings.checks import check_flag

T = TypeVar("T")
PRECISIONS = ("float32", "tf32", "bfloat16")


class Engine:
    """The device of one process, and its communication with the others.

    Args:
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        precision: "float32"; "tf32" lets a GPU round the factors of matrix products to 10 bits;
            "bfloat16" runs models under autocast (on a CPU without AMX that is slower).
        num_processes: Processes on this machine, each with its own device.
        channels_last: Whether images lie as (b, h, w, c) in memory, where convolutions are
            faster.
        compile: Whether the model is compiled for training with `torch.compile`.
        cuda_graphs: Whether steps of training are recorded and replayed as CUDA graphs, on a GPU
            and where the shapes of batches repeat.
        resident: Whether decoded image sets are kept on a GPU, if they fit.
        num_threads: CPU threads of a process; null shares the cores evenly.
        seeds_per_process: Seeds of a sweep whose runs train side by side in one process.

    Raises:
        InvalidSetting: A value is not permitted, or the device does not exist.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        precision: str = "float32",
        num_processes: int = 1,
        channels_last: bool = True,
        compile: bool = False,
        cuda_graphs: bool = False,
        resident: bool = False,
        num_threads: int | None = None,
        seeds_per_process: int = 1,
    ) -> None:
        require_positive("engine.num_processes", num_processes)
        require_positive("engine.seeds_per_process", seeds_per_process)
        if num_threads is not None:
            require_positive("engine.num_threads", num_threads)
        if precision not in PRECISIONS:
            raise InvalidSetting(
                f"engine.precision must be one of {', '.join(PRECISIONS)}, got {precision!r}"
            )
        check_flag("engine.channels_last", channels_last)
        check_flag("engine.compile", compile)
        check_flag("engine.cuda_graphs", cuda_graphs)
        check_flag("engine.resident", resident)
        if seeds_per_process > 1 and (num_processes > 1 or compile or cuda_graphs):
            raise InvalidSetting(
                f"engine.seeds_per_process={seeds_per_process} stacks networks in one process: "
                "leave engine.num_processes at 1, engine.compile and engine.cuda_graphs at false"
            )
        self.precision = precision
        self.num_processes = num_processes
        self.channels_last = channels_last
        self.compile, self.cuda_graphs, self.resident = compile, cuda_graphs, resident
        self.rank, self.world_size = 0, 1
        self._wanted = device
        self._stream: Stream | None = None
        self.num_threads = num_threads
        self.device = _device(device, local_rank=0)

    @classmethod
    def of_worker(cls, settings: Mapping[str, Any], *, number: int, num_workers: int) -> Engine:
        """Return the engine of one of several independent workers on this machine.

        The workers take the GPUs in turn; without GPUs they share the cores evenly.

        Args:
            settings: Arguments of `Engine`.
            number: Number of the worker, from 0.
            num_workers: Number of workers.
        """
        device = _device(settings.get("device", "auto"), local_rank=0)
        threads = settings.get("num_threads") or max(1, num_cores() // num_workers)
        name = settings.get("device", "auto")
        if device.type == "cuda" and name in ("auto", "cuda"):
            name = f"cuda:{number % torch.cuda.device_count()}"
        return cls(**{**settings, "device": name, "num_threads": threads})

    @staticmethod
    def num_devices(settings: Mapping[str, Any]) -> int:
        """Return the number of workers that use this machine fully: its GPUs, or else its cores."""
        if _device(settings.get("device", "auto"), local_rank=0).type == "cuda":
            return torch.cuda.device_count()
        return num_cores()

    @property
    def is_main(self) -> bool:
        """True for the process that writes files."""
        return self.rank == 0

    @property
    def records(self) -> bool:
        """True if steps of training may be recorded: on the only GPU of this run."""
        return self.cuda_graphs and self.device.type == "cuda" and self.world_size == 1

    @property
    def device_name(self) -> str:
        """Name of the device: "cpu", or the model of the GPU."""
        return "cpu" if self.device.type == "cpu" else torch.cuda.get_device_name(self.device)

    def launch(self, job: Callable[..., T], *args: Any) -> T:
        """Run `job(engine, *args)` in every process and return the result of the first one.

        Args:
            job: A function of an importable module.
            args: Its further arguments; with several processes they are pickled.

        Raises:
            ActiveLearningError, OSError: The job raised it, in any of the processes.
        """
        if "TORCHELASTIC_RUN_ID" in os.environ or self.num_processes == 1:
            return _in_process(self, job, args)
        check_semaphores(f"engine.num_processes={self.num_processes}")
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=self.num_processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            start_method="spawn",
        )
        with tempfile.TemporaryDirectory() as folder:
            failure = Path(folder) / "error"
            try:
                with quiet_launcher():
                    results: dict[int, T] = elastic_launch(config, _worker)(
                        self, job, args, failure
                    )
            except ChildFailedError:
                if failure.exists():
                    raise pickle.loads(failure.read_bytes()) from None
                raise
        return results[0]

    def join(self) -> None:
        """Set up this process, and connect it to the others that the launcher has started."""
        keep_freed_memory()
        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.num_processes))
        torch.set_num_threads(self.num_threads or max(1, num_cores() // here))
        torch.set_float32_matmul_precision("highest" if self.precision == "float32" else "high")
        torch.backends.cudnn.benchmark = self.device.type == "cuda"
        torch.backends.cudnn.allow_tf32 = self.precision != "float32"
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return
        self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.device = _device(self._wanted, local_rank=int(os.environ["LOCAL_RANK"]))
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")

    def leave(self) -> None:
        """Disconnect from the other processes."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def to_device(self, value: Any) -> Any:
        """Move a tensor, or a list of tensors, to the device without waiting for the transfer."""
        return to_device(value, self.device)

    def pinned(self, value: Any) -> Any:
        """Prepare tensors for `to_device`, which a thread that loads batches ahead can do."""
        return pinned(value, self.device)

    def fits(self, num_bytes: int, *, share: float) -> bool:
        """Return whether a GPU has so many bytes within a share of its free memory."""
        return fits(num_bytes, self.device, share=share)

    def laid_out(self, images: Tensor) -> Tensor:
        """Return a batch of images in the memory layout of the model."""
        if self.channels_last and images.ndim == 4:
            return images.contiguous(memory_format=torch.channels_last)
        return images.contiguous()

    def placed(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, in its memory layout."""
        if self.channels_last:
            # The stubs of Module.to have no overload with a memory format alone.
            return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
        return model.to(self.device)

    def for_training(self, model: nn.Module, *, find_unused_parameters: bool) -> nn.Module:
        """Wrap a placed model for training: compiled if set, with gradients of all processes."""
        if self.compile:
            model = torch.compile(model)  # type: ignore[assignment]
        if self.world_size > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            model = DistributedDataParallel(
                model, device_ids=devices, find_unused_parameters=find_unused_parameters
            )
        return model

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which models are called."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"
        )

    @contextlib.contextmanager
    def recording_stream(self) -> Iterator[None]:
        """Work in a stream of its own, in which CUDA graphs can be recorded, if they may be."""
        if not self.records:
            yield
            return
        # One for all trainings: freed memory stays with its stream.
        self._stream = self._stream or new_stream(self.device)
        with within(self._stream):
            yield

    def generator(self, seed: int) -> torch.Generator:
        """Return a generator on the device; each process draws other numbers."""
        return torch.Generator(self.device).manual_seed((seed + self.rank) % 2**63)

    @contextlib.contextmanager
    def seeded(self, seed: int, *, alike: bool = False) -> Iterator[None]:
        """Seed torch's global generators, from which dropout draws, within this context.

        Args:
            seed: Its numbers differ between processes.
            alike: Draw the same numbers in every process instead.
        """
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed((seed + (0 if alike else self.rank)) % 2**63)
            yield

    def random_state(self) -> dict[str, Tensor]:
        """Return the states of torch's global generators: of the CPU, and of the device."""
        states = {"cpu": torch.random.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def set_random_state(self, states: Mapping[str, Tensor]) -> None:
        """Set the states of torch's global generators to those of `random_state`."""
        torch.random.set_rng_state(states["cpu"])
        if self.device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], self.device)

    def shard(self, count: int) -> range:
        """Return this process's part of `range(count)`: contiguous, in order, without padding."""
        size, left = divmod(count, self.world_size)
        start = self.rank * size + min(self.rank, left)
        return range(start, start + size + (self.rank < left))

    def gather_rows(self, rows: Tensor | None) -> Tensor:
        """Concatenate the rows of all processes, in order; every process gets them on the CPU."""
        parts = self.gather(None if rows is None else rows.cpu())
        kept = [part for part in parts if part is not None]
        return torch.cat(kept) if kept else torch.empty(0)

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, which must be picklable, in every process.

        Tensors inside the values come back on the CPU, those of this process included; a process
        that unpickled one of another GPU would open a context there, which takes its memory.
        """
        if self.world_size == 1:
            return [value]
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, _pickled_on_cpu(value))
        return [pickle.loads(part) for part in parts]

    def barrier(self) -> None:
        """Wait until all processes have come here."""
        if self.world_size > 1:
            dist.barrier()

    def synchronize(self) -> None:
        """Wait until the device has finished, so that times are those of its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def reset_peak_memory(self) -> None:
        """Start a new measurement of peak memory."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        reset_peak_host_memory()

    def peak_memory_mb(self) -> float:
        """Return the peak in MB since the reset: of the GPU's memory, or else of this process's."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return host_memory_mb(peak=True)


def _device(name: str, *, local_rank: int) -> torch.device:
    has_gpu = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if has_gpu else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise InvalidSetting(
            f"engine.device must be auto, cpu, cuda or cuda:N, got {name!r}"
        ) from None
    if device.type not in ("cpu", "cuda"):
        raise InvalidSetting(f"engine.device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda":
        index = local_rank if name == "cuda" else device.index
        if not has_gpu or index >= torch.cuda.device_count():
            raise InvalidSetting(
                f"engine.device={name}: there are {torch.cuda.device_count()} GPUs; use "
                "engine.device=cpu or auto"
            )
        device = torch.device("cuda", index)
    return device


class _CpuPickler(pickle.Pickler):
    """Pickler that moves tensors to the CPU, at any depth of an object."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor) and obj.device.type != "cpu":
            return obj.cpu().__reduce_ex__(pickle.HIGHEST_PROTOCOL)  # type: ignore[no-untyped-call]
        return NotImplemented


def _pickled_on_cpu(value: Any) -> bytes:
    buffer = io.BytesIO()
    _CpuPickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def _in_process(engine: Engine, job: Callable[..., T], args: Sequence[Any]) -> T:
    engine.join()
    try:
        return job(engine, *args)
    finally:
        engine.leave()


def _worker(engine: Engine, job: Callable[..., T], args: Sequence[Any], failure: Path) -> T:
    """Run the job in a started process. The launcher ends the others when one fails."""
    end_with_parent()
    try:
        return _in_process(engine, lambda *given: _telling(failure, job, given), args)
    except Exception:
        # Where another process has recorded an error, this one only follows from its end.
        if failure.exists():
            raise SystemExit(1) from None
        traceback.print_exc()
        raise


def _telling(failure: Path, job: Callable[..., T], args: Sequence[Any]) -> T:
    """Run the job; write its error to `failure` before this process leaves the others."""
    try:
        return job(*args)
    except (ActiveLearningError, OSError) as error:
        if not failure.exists():
            own = failure.with_name(f"error{os.getpid()}")
            own.write_bytes(pickle.dumps(error))
            own.replace(failure)
        raise
