"""Pictures of cases: the image once as WebP, every mask as a vector path of its runs over it; images whose class
changed with their names."""

from __future__ import annotations

from edgemamba.profiling.pictures import Mask, decode_runs, encode_runs
from edgemamba.profiling.quality import Case, ClassRetention
from edgemamba.report.svg import escape


def case_tiles(case: Case, key: str, name: str) -> str:
    """Five tiles of a case: image, truth, fp32, artifact, error of the artifact.

    Args:
        case: what to draw.
        key: unique on the page.
        name: of the artifact.
    """
    height, width = case.height, case.width
    truth, reference, artifact = (
        decode_runs(runs, height, width) for runs in (case.truth, case.reference, case.artifact)
    )
    image = (
        f'<image id="{escape(key)}" width="{width}" height="{height}" href="data:image/webp;base64,{case.image_webp}"/>'
    )
    again = f'<use href="#{escape(key)}"/>'
    tiles = [
        (case.channel, image, f"{width}x{height}"),
        ("truth", again + _area(truth, "truth"), f"{int(truth.sum())} lesion pixels"),
        (
            "fp32 PyTorch",
            again + _area(reference, "pred"),
            f"{int(reference.sum())} pixels, Dice {_dice(case.dice_reference)}",
        ),
        (
            f"artifact ({name})",
            again + _area(artifact, "pred"),
            f"{int(artifact.sum())} pixels, Dice {_dice(case.dice_artifact)}",
        ),
        (
            "error",
            again
            + '<rect width="100%" height="100%" class="veil"/>'
            + _area(truth & artifact, "hit")
            + _area(artifact & ~truth, "alarm")
            + _area(truth & ~artifact, "miss")
            + _area(reference ^ artifact, "differ"),
            f"{int((artifact & ~truth).sum())} false, {int((truth & ~artifact).sum())} missed",
        ),
    ]
    return "".join(
        f'<figure class="tile"><svg viewBox="0 0 {width} {height}" role="img"><title>{escape(label)}: '
        f"{escape(words)}</title>"
        f"{drawing}</svg><figcaption><b>{escape(label)}</b> {escape(words)}</figcaption></figure>"
        for label, drawing, words in tiles
    )


def class_cases(kept: ClassRetention) -> str:
    """The images that the artifact names otherwise than the fp32 model, largest change first."""
    tiles = "".join(
        f'<figure class="tile"><svg viewBox="0 0 {case.width} {case.height}" role="img"><title>{escape(case.label)}: '
        f"{escape(case.truth)}</title>"
        f'<image width="{case.width}" height="{case.height}" href="data:image/webp;base64,{case.image_webp}"/></svg>'
        f"<figcaption><b>{escape(case.truth)}</b> fp32: {escape(case.reference)} {case.probability_reference:.2f}; "
        f"artifact: {escape(case.artifact)} {case.probability_artifact:.2f} ({escape(case.label)})</figcaption>"
        "</figure>"
        for case in kept.cases
    )
    return (
        '<h3 class="part">Pictures</h3><p class="lead">Images that the artifact names otherwise than the fp32 model, '
        "those whose probabilities changed most. In bold the true class.</p>"
        f'<section class="case"><div class="tiles">{tiles}</div></section>'
    )


def _area(mask: Mask, css: str) -> str:
    """The mask as one path: a box for every run of a row."""
    boxes = []
    for y in range(mask.shape[0]):
        runs = encode_runs(mask[y])
        boxes += [f"M{x} {y}h{length}v1h-{length}z" for x, length in zip(runs[::2], runs[1::2], strict=True)]
    return f'<path d="{"".join(boxes)}" class="{css}"/>' if boxes else ""


def _dice(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
