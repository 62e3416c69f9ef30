"""Timings on a GPU, each of which is written down as soon as it is known.

    python -m benchmarks.gpu.timing PART --device cuda --data FOLDER --file RESULTS.jsonl

A part is one process, so that its failure or its time limit loses nothing of the others.
"""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench, waiting
from benchmarks.gpu.others import others
from benchmarks.gpu.seeds import seeds
from benchmarks.gpu.steps import compiled, scoring, steps
from benchmarks.timing import machine


def probe(bench: Bench) -> None:
    """Describe the machine and measure its ceilings."""
    engine = bench.engine()
    bench.record("machine", text=machine("torch", "torchvision"), device=engine.device_name)
    size = 8192 if bench.is_gpu else 256

    def product(dtype: torch.dtype) -> dict[str, Any]:
        a, b = (torch.randn(size, size, device=engine.device, dtype=dtype) for _ in range(2))
        seconds = bench.seconds_of(waiting(engine, lambda: a @ b))
        return {"tflops": 2 * size**3 / seconds / 1e12}

    def copied(to: torch.device, source: Tensor) -> dict[str, Any]:
        target = torch.empty_like(source, device=to)
        seconds = bench.seconds_of(waiting(engine, lambda: target.copy_(source)))
        return {"gb_per_s": source.nbytes / seconds / 1e9}

    def launches() -> dict[str, Any]:
        x = torch.zeros(8, device=engine.device)

        def many() -> None:
            for _ in range(1000):
                x.add_(1)

        return {"us_a_launch": 1e3 * bench.seconds_of(waiting(engine, many))}

    count = 2**30 if bench.is_gpu else 2**20
    bench.guarded("product bfloat16", partial(product, torch.bfloat16))
    bench.guarded("product float32", partial(product, torch.float32))
    on_device = torch.empty(count, dtype=torch.uint8, device=engine.device)
    bench.guarded("copy on the device", partial(copied, engine.device, on_device))
    host = engine.pinned(torch.empty(count // 4, dtype=torch.uint8))
    bench.guarded("copy to the device", partial(copied, engine.device, host))
    bench.guarded("launches", launches)


PARTS: dict[str, Callable[[Bench], None]] = {
    "probe": probe,
    "steps": steps,
    "compiled": compiled,
    "scoring": scoring,
    "others": others,
    "seeds": seeds,
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="+", choices=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", help="folder that `stored` reads; the embedded digits if none")
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--networks", default="resnet18,vgg11")
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    for part in options.part:
        bench = Bench(
            part,
            device=options.device,
            data=options.data,
            file=options.file,
            networks=options.networks.split(","),
            seconds=options.seconds,
            batch_size=options.batch_size,
        )
        try:
            PARTS[part](bench)
        except Exception:  # noqa: BLE001  # the next part may work
            bench.record("failed", error=traceback.format_exc()[-1500:])


if __name__ == "__main__":
    main()
