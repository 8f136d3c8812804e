"""Pictures of a classifier's surest mistakes, four side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgemamba.evaluation.pictures import Picture, strip

if TYPE_CHECKING:
    from edgemamba.data.base import Dataset
    from edgemamba.evaluation.classes import Answers

_IN_A_ROW = 4
# Characters below a panel.
_ROOM = 38


def mistake_pictures(dataset: Dataset, answers: Answers, count: int = 12) -> list[Picture]:
    """Strips of the images whose wrong first class is most probable, each with what it is and what it was taken for."""
    rows = answers.surest_mistakes(count)
    pictures = []
    for start in range(0, len(rows), _IN_A_ROW):
        chosen = rows[start : start + _IN_A_ROW]
        told = [
            f"{answers.labels[answers.truth[row]]}, taken for {answers.labels[answers.first[row]]} "
            f"({answers.probability[row]:.0%})"
            for row in chosen
        ]
        panels = [(text[:_ROOM], dataset.read(answers.indices[row])[0]) for text, row in zip(told, chosen, strict=True)]
        title = f"surest mistakes {start + 1} to {start + len(chosen)}"
        caption = "; ".join(f"{answers.ids[row]}: {text}" for row, text in zip(chosen, told, strict=True))
        pictures.append(Picture(f"mistakes-{start + 1}", caption, strip(title, panels, ())))
    return pictures
