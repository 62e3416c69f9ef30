"""Matching and loss of a detector, batched, against a plain loop over images and objects.

    python -m benchmarks.detection_loss                   SSD300's 8,732 priors, 32 images, the CPU
    python -m benchmarks.detection_loss --clock cpu       on a busy machine
    python -m benchmarks.detection_loss --device cuda

Both compute the published loss forward and backward from the same offsets, logits and objects (1 to
12 per image), and must agree. The plain loop is written in the usual way: image by image, a Python
loop over the objects for their priors, two sorts to find the hard negatives.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.arguments import engine_of, timed
from benchmarks.timing import Contender, interleaved, machine, ratio, table, verdict
from experiments.engine.engine import Engine
from vendored.ssd_pytorch import VOC, MultiBoxLoss, PriorBox, encode, jaccard, point_form

NUM_CLASSES = 21
VARIANCES = (0.1, 0.2)


def main() -> None:
    """Run the command line."""
    parser = timed(__doc__, rounds=9)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()
    print(machine("torch", "torchvision"))
    engine_of(arguments).launch(_measure, arguments)


def _measure(engine: Engine, arguments: argparse.Namespace) -> None:
    torch.manual_seed(0)
    priors = PriorBox(VOC)().to(engine.device)
    b, num_priors = arguments.batch_size, len(priors)
    offsets = torch.randn(b, num_priors, 4, device=engine.device, requires_grad=True)
    logits = torch.randn(b, num_priors, NUM_CLASSES, device=engine.device, requires_grad=True)
    targets = [engine.to_device(_objects(1 + k % 12)) for k in range(b)]
    batched = MultiBoxLoss(NUM_CLASSES, variances=VARIANCES)

    def ours() -> tuple[Tensor, Tensor]:
        found = batched.per_image((offsets, logits, priors), targets)
        return found.localization + found.confidence, found.num_positives

    def loop() -> tuple[Tensor, Tensor]:
        return plain_loss(offsets, logits, priors, targets)

    torch.testing.assert_close(ours(), loop(), rtol=1e-4, atol=1e-3)

    def step(loss: Callable[[], tuple[Tensor, Tensor]]) -> Callable[[], None]:
        def run() -> None:
            losses, counts = loss()
            offsets.grad = logits.grad = None
            (losses.sum() / counts.sum()).backward()  # type: ignore[no-untyped-call]
            engine.synchronize()

        return run

    contenders = [
        Contender("ours, batched", step(ours), 1),
        Contender("plain loop", step(loop), 1),
    ]
    times = interleaved(contenders, rounds=arguments.rounds, clock=arguments.clock)
    print(f"\n{b} images, {num_priors} priors, {engine.device}, ", end="")
    print(f"{torch.get_num_threads()} threads, {arguments.rounds} rounds, {arguments.clock} time\n")
    print(table(times, against="ours, batched", unit="batch"), end="\n\n")
    gain = ratio(times["plain loop"], times["ours, batched"])[0]
    print(verdict("plain loop / ours at least 1", gain, at_least=1))


def _objects(count: int) -> Tensor:
    low = torch.rand(count, 2) * 0.6
    sides = 0.05 + torch.rand(count, 2) * 0.35
    labels = torch.randint(0, NUM_CLASSES - 1, (count, 1)).float()
    return torch.cat([low, low + sides, labels], 1)


def plain_loss(
    offsets: Tensor, logits: Tensor, priors: Tensor, targets: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the loss (b,) and the positives (b,) of each image, one image at a time."""
    losses, counts = [], []
    for loc, conf, target in zip(offsets, logits, targets, strict=True):
        overlaps = jaccard(target[:, :4], point_form(priors))
        best_overlap, best_truth = overlaps.max(0)
        best_prior = overlaps.argmax(1)
        for j in range(len(target)):
            best_overlap[best_prior[j]] = 2.0
            best_truth[best_prior[j]] = j
        classes = target[best_truth, 4].long() + 1
        classes[best_overlap < 0.5] = 0
        positive = classes > 0
        wanted = encode(target[best_truth, :4], priors, VARIANCES)
        box_loss = F.smooth_l1_loss(loc[positive], wanted[positive], reduction="sum")
        class_loss = F.cross_entropy(conf, classes, reduction="none")
        hardness = class_loss.detach().clone()
        hardness[positive] = 0
        rank = hardness.sort(descending=True, stable=True)[1].sort()[1]
        negative = rank < 3 * positive.sum()
        losses.append(box_loss + class_loss[positive | negative].sum())
        counts.append(positive.sum())
    return torch.stack(losses), torch.stack(counts)


if __name__ == "__main__":
    main()
