"""Time of ranking a folder, against the bare decoding of its images and the bare forward pass.

    python -m benchmarks.ranking FOLDER --checkpoint runs/.../checkpoints/cycle_02.pt
    python -m benchmarks.ranking FOLDER --checkpoint CHECKPOINT --images 4096 --threads 1

The project's contender is the part of `experiments.rank` between listing and writing: it reads
chunks of images from the state on disk, decodes them ahead in threads, scores them, and records the
scores. The bare decoding decodes and resizes the same files in one call with as many threads. The
bare forward pass runs the network without loss-prediction module or score over batches that are
already decoded, normalized and laid out. The benchmark is for classification, whose images have one
size. If both use the same cores, ranking takes at least the sum of their times; with a GPU, at
least the larger one.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from al_core import ActiveLearning
from benchmarks.arguments import timed
from benchmarks.timing import Contender, interleaved, machine, ratio, table
from experiments.data.decoding import decode_many
from experiments.data.loading import chunks
from experiments.ranking.executors import Chunk, Recipe, score_inline
from experiments.ranking.listing import Listing
from experiments.ranking.model import read_model
from experiments.ranking.scorer import Scorer
from experiments.ranking.settings import rank_settings
from experiments.ranking.store import Store


def main() -> None:
    """Run the command line."""
    parser = timed(__doc__, rounds=5, threads=1)
    parser.add_argument("folder", help="images")
    parser.add_argument("--checkpoint", required=True, help="of a run of image classification")
    parser.add_argument("--images", type=int, default=10_000, help="a turn")
    arguments = parser.parse_args()
    print(machine("torch", "opencv-python-headless"))
    settings = rank_settings(
        {"images": arguments.folder, "checkpoint": arguments.checkpoint, "budget": 1}
    )
    model = read_model(settings, {})
    engine = {
        "device": arguments.device,
        "precision": arguments.precision,
        "num_threads": arguments.threads,
    }
    scorer = Recipe(model, engine, {}).scorer_here()
    listing = Listing(settings.images)
    files = list(islice(listing.files(), arguments.images))
    paths = [Path(listing.path(file.name)) for file in files]
    size = model.data_facts["image_size"]

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder) / "scores.sqlite")
            store.update(files)
            pending = (
                Chunk([id_ for id_, _ in part], [listing.path(name) for _, name in part])
                for part in chunks(store.pending(), scorer.chunk_size)
            )
            for part in score_inline(scorer, pending):
                store.record(*part)
            assert store.counts().scored == len(files)
            store.close()

    times = interleaved(
        [
            Contender("ours", ours, len(files)),
            Contender("bare forward", _bare_forward(scorer, paths, model.data_facts), len(files)),
            Contender(
                "bare decoding",
                lambda: decode_many(paths, size, num_threads=arguments.threads),
                len(files),
            ),
        ],
        rounds=arguments.rounds,
        clock=arguments.clock,
    )
    both = zip(times["bare decoding"], times["bare forward"], strict=True)
    times["bare decoding + bare forward"] = [sum(pair) for pair in both]
    print(f"\n{model.description}; {arguments.threads} threads, {arguments.rounds} rounds of "
          f"{len(files)} images, {arguments.clock} time\n")  # fmt: skip
    print(table(times, against="bare decoding + bare forward", unit="image", scale_name="us"))
    slower = max(("bare forward", "bare decoding"), key=lambda part: statistics.median(times[part]))
    print(f"\nours / {slower}, the slower: {ratio(times['ours'], times[slower])[0]:.3g}")
    print(f"ours: {1 / statistics.median(times['ours']):.0f} images a second")


def _bare_forward(
    scorer: Scorer, paths: list[Path], facts: Mapping[str, Any]
) -> Callable[[], object]:
    model, engine = scorer.learner.model, scorer.learner.engine
    if isinstance(model, ActiveLearning):
        model = model.base_model
    model.eval()
    images = decode_many(paths, facts["image_size"]).images
    batches = [
        engine.laid_out(scorer.task.normalize(engine.to_device(part)))
        for part in torch.split(images, scorer.task.inference_batch_size(*images.shape[2:]))
    ]

    @torch.inference_mode()
    def forward() -> None:
        for batch in batches:
            model(batch)
        engine.synchronize()

    return forward


if __name__ == "__main__":
    main()
