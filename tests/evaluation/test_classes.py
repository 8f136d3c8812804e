"""Scores of classifiers against plain counting, and the command on a real run."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgemamba.console import Console
from edgemamba.data import ClassDataset, open_dataset
from edgemamba.errors import InputError, UsageError, VerificationError
from edgemamba.evaluation.class_pictures import mistake_pictures
from edgemamba.evaluation.classes import Answers, classify
from edgemamba.evaluation.command import EvaluateOptions, evaluate_subject
from edgemamba.evaluation.predict import predict_images
from edgemamba.evaluation.shares import balanced
from edgemamba.train import TrainConfig, train

QUIET = Console(quiet=True)
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def figures() -> ClassDataset:
    dataset = open_dataset("shapes", classes=7, images=9)
    assert isinstance(dataset, ClassDataset)
    return dataset


def said(images: Floats) -> Floats:
    """Seeded by the picture: about as many right as by chance."""
    rows = [np.random.default_rng(int(np.rint(image * 255).sum())).dirichlet(np.ones(7)) for image in images]
    return np.asarray(rows, np.float32)


@pytest.fixture(scope="module")
def answers(figures: ClassDataset) -> Answers:
    found, _ = classify([said], figures, range(63), (32, 32), QUIET, labels=figures.labels, split="image")
    return found[0]


def test_counts(answers: Answers, figures: ClassDataset) -> None:
    probabilities = np.concatenate(
        [said(figures.read(i)[0].transpose(2, 0, 1)[None] / np.float32(255)) for i in range(63)]
    )
    truth = np.asarray(figures.targets)
    own = probabilities[np.arange(63), truth]
    rank = (probabilities > own[:, None]).sum(1)
    document = answers.document(seed=3)
    json.dumps(document, allow_nan=False)
    assert document["top1"]["value"] == pytest.approx(float((rank == 0).mean()))
    assert document["top5"]["value"] == pytest.approx(float((rank < 5).mean()))
    each = [float((rank[truth == k] == 0).mean()) for k in range(7)]
    assert document["balanced"]["value"] == pytest.approx(float(np.mean(each)))
    assert document["balanced"]["low"] < document["balanced"]["value"] < document["balanced"]["high"]
    wrong = probabilities.argmax(1) != truth
    assert sum(row["images"] for row in answers.mistakes(100)) == int(wrong.sum())
    surest = int(np.flatnonzero(wrong)[probabilities.max(1)[wrong].argmax()])
    assert document["surest_mistakes"][0]["id"] == figures.samples[surest].id
    assert document["surest_mistakes"][0]["truth"] == figures.labels[truth[surest]]
    table = list(csv.DictReader(io.StringIO(answers.per_image_csv())))
    assert len(table) == 63 and table[4]["best_1"] == figures.labels[probabilities[4].argmax()]


def test_mean_over_classes_of_uneven_classes() -> None:
    classes = np.repeat([0, 1, 4], [90, 9, 1])
    hits = np.concatenate([np.ones(90), np.zeros(9), np.ones(1)]).astype(bool)
    found = balanced(hits, classes)
    assert found.value == pytest.approx(2 / 3)
    assert found.images == 100 and found == balanced(hits, classes)
    assert balanced(hits[:0], classes[:0]).value is None
    assert balanced(hits[:3], classes[:3]).low is None


def test_interval_of_the_mean_over_classes_covers() -> None:
    """Of 200 draws from known accuracies about 95 % have the true mean in their interval."""
    rng = np.random.default_rng(0)
    accuracy = np.array([0.9, 0.7, 0.5, 0.8])
    covered = 0
    for trial in range(200):
        classes = rng.integers(0, 4, 200)
        found = balanced(rng.random(200) < accuracy[classes], classes, seed=trial)
        assert found.low is not None and found.high is not None
        covered += found.low <= accuracy.mean() <= found.high
    assert 180 <= covered <= 198


def test_pictures_of_the_surest_mistakes(answers: Answers, figures: ClassDataset) -> None:
    pictures = mistake_pictures(figures, answers, 6)
    assert len(pictures) == 2
    first = answers.document()["surest_mistakes"][0]
    assert f"{first['id']}: {first['truth']}, taken for {first['first']}" in pictures[0].caption
    assert np.asarray(pictures[0].image).std() > 10


def test_answers_that_are_no_numbers_or_of_other_classes(figures: ClassDataset) -> None:
    def broken(images: Floats) -> Floats:
        return said(images) * np.float32(np.nan)

    with pytest.raises(VerificationError, match=r"NaN or infinity on disc_0000"):
        classify([broken], figures, range(9), (32, 32), QUIET, labels=figures.labels, split="image")
    with pytest.raises(InputError, match="the network knows 7 classes"):
        classify([said], figures, range(9), (32, 32), QUIET, labels=figures.labels[:3], split="image")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    options = {"classes": 3, "images": 20}
    train(
        TrainConfig.resolve(
            out=out, model="vim-2d-nano", data_options=options, epochs=1, batch=12, threads=1, device="cpu"
        ),
        QUIET,
    )
    return out


def test_command_on_a_run(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    document = evaluate_subject(str(run), EvaluateOptions(threads=1, out=out), QUIET)
    assert document["images"] == 6 and document["subject"]["model"] == "vim-2d-nano" and document["part"] == "test"
    assert document["classes"] == 3
    assert json.loads((out / "evaluation.json").read_text())["top1"] == document["top1"]
    assert len((out / "per_image.csv").read_text().splitlines()) == 7
    wrong = sum(row["images"] for row in document["mistakes"])
    assert len(list((out / "pictures").glob("*.png"))) == -(-wrong // 4)
    other = evaluate_subject(
        str(run), EvaluateOptions(data=("shapes", None, {"classes": 3, "images": 10}), threads=1), QUIET
    )
    assert (other["images"], other["split"]) == (3, "image")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"ssm": True}, "are for networks that segment"),
        ({"threshold": 0.4}, "are for networks that segment"),
        ({"data": ("phantoms", None, {})}, "vim-2d-nano needs a class for each image; the phantoms data has a mask"),
    ],
)
def test_what_does_not_fit_a_classifier(run: Path, options: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        evaluate_subject(str(run), EvaluateOptions(**options), QUIET)  # type: ignore[arg-type]


def test_prediction_by_a_run(run: Path, figures: ClassDataset, tmp_path: Path) -> None:
    for index in (0, 20):
        Image.fromarray(figures.read(index)[0]).resize((50, 40)).save(tmp_path / f"{index}.png")
    rows = predict_images(run, [tmp_path / "0.png", tmp_path / "20.png"], tmp_path / "out", QUIET)
    for row in rows:
        assert {one["name"] for one in row["classes"]} == {"disc", "square", "cross"}
        assert sum(one["probability"] for one in row["classes"]) == pytest.approx(1, abs=1e-5)
    assert len((tmp_path / "out" / "classes.csv").read_text().splitlines()) == 7
    with pytest.raises(UsageError, match="--runtime is for a Bundle"):
        predict_images(run, [tmp_path / "0.png"], tmp_path / "other", QUIET, runtime="litert")
    with pytest.raises(UsageError, match="a threshold means nothing"):
        predict_images(run, [tmp_path / "0.png"], tmp_path / "other", QUIET, threshold=0.4)
