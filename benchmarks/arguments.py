"""Common arguments of benchmarks, and the engine that they describe."""

from __future__ import annotations

import argparse

from experiments.engine.engine import Engine


class Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """A formatter that keeps the description's line breaks and shows defaults."""


def timed(
    description: str | None, *, rounds: int, threads: int | None = None
) -> argparse.ArgumentParser:
    """Return a parser of the common arguments of timings on a device.

    Args:
        description: Description of the benchmark.
        rounds: Default number of rounds.
        threads: Default number of threads; None for one per core.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=Formatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu on a busy machine"
    )
    parser.add_argument(
        "--threads", type=int, default=threads, help="CPU threads; one a core where not given"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="float32", help="float32, tf32 or bfloat16")
    return parser


def engine_of(arguments: argparse.Namespace, *, compile: bool = False) -> Engine:
    """Return the engine that the arguments describe."""
    return Engine(
        device=arguments.device,
        precision=arguments.precision,
        num_threads=arguments.threads,
        compile=compile,
    )
