"""Ask people for a second look at labels that look wrong: `experiments.annotate relabel RUN`.

The images of `relabel.csv` go back to the annotators with the class that they seem to be of as the
draft: as tasks of the run's project in Label Studio, or as a folder like that of a batch. The run
does not wait for them. An annotation that comes back replaces the label from the next training on,
as any newer annotation does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.annotation.label_studio_client import Client
from experiments.annotation.label_studio_project import Journal, OpenTasks, by_name
from experiments.annotation.run_view import EXCHANGE, AskingRun
from experiments.annotation.settings import LabelStudioSettings, address_in_files
from experiments.data.labels import Item, Label, UnusableFile
from experiments.handoff.export import hand_out
from experiments.handoff.returned import upright_size
from experiments.reporting.suspects import RELABEL, read_suspects


def doubtful(run: AskingRun, *, count: int) -> list[Item]:
    """Return the images whose labels look most wrong, with the suggested class as the draft.

    Images that are gone, and labels that have changed since they were judged, are left out.

    Raises:
        UnusableFile: The run does not ask people.
        InvalidSetting: The list is damaged.
    """
    if run.ledger is None:
        raise UnusableFile(f"{run.folder} asks nobody: its labels are those of the data set")
    answers = run.ledger.answers
    found = []
    for one in read_suspects(run.folder):
        answer, path = answers.get(one.name), run.root / one.name
        if answer is None or answer.class_name != one.label or not path.exists():
            continue
        draft = Label(class_name=one.suggested, score=one.p_suggested)
        score = one.p_suggested - one.p_label
        found.append(Item(one.name, path, upright_size(path), score, draft))
    return found[:count]


def ask_in_label_studio(
    run: AskingRun, items: Sequence[Item], settings: LabelStudioSettings
) -> int:
    """Create a second task for each image in the run's project, before all others in its queue.

    Images that have a second task already, open or done, get no further one.

    Args:
        run: The run.
        items: The images, the most doubtful first.
        settings: Address and token of the server.

    Returns:
        The number of tasks that were created.

    Raises:
        LabelStudioError: The server is down or refuses.
        UnusableFile: The run has no project yet.
    """
    assert settings.url is not None, "the run has an address"
    client = Client(settings.url, settings.key())
    client.check()
    project = Journal.read(run.folder / EXCHANGE / "journal.json").project
    if project is None:
        raise UnusableFile(f"{run.folder} has no project in Label Studio yet")
    tasks = by_name(client.tasks(project))
    new = [item for item in items if len(tasks.get(item.name, ())) < 2]
    OpenTasks(client, project, run.rules, image_url=settings.image_url).ask_again(new)
    return len(new)


def ask_in_files(run: AskingRun, items: Sequence[Item]) -> Path:
    """Write the images into a folder beside those of the batches, and return it.

    Raises:
        OSError: The disk is full, ...
    """
    oracle = run.config["oracle"]
    folder = run.folder / "requests" / Path(RELABEL).stem
    hand_out(
        items, run.rules, folder,
        formats=oracle["formats"], images=oracle["images"],
        image_url=address_in_files(oracle["image_url"]),
    )  # fmt: skip
    return folder
