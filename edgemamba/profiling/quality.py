"""How good an artifact is, as a report keeps it: figures with intervals, accuracy beside the fp32 PyTorch model, and
the cases that are shown."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field, model_validator

from edgemamba.records import Record


class Quantity(Record):
    """One figure, its 95 % interval where there is one, and why anything is missing."""

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = Field(default="", description="how the interval was made")
    reason: str = Field(default="", description="why there is no value, or no interval")

    @model_validator(mode="after")
    def _reasoned(self) -> Quantity:
        for number in (self.value, self.low, self.high):
            if number is not None and not math.isfinite(number):
                raise ValueError("a number that is not finite must be null")
        if self.value is None and not self.reason:
            raise ValueError("a missing value needs a reason")
        return self


class PatientScore(Record):
    """One patient of the held-out set; numbered unless ids were asked for."""

    patient: str
    images: int
    tumour_images: int
    dice_reference: float | None
    dice_artifact: float | None


class Case(Record):
    """One image with its masks, as run lengths (start, length, start, length, ... in row-major order)."""

    label: str
    why: list[str]
    height: int
    width: int
    channel: str = Field(description="what the picture shows: the image, or one channel of it")
    image_webp: str = Field(description="base64", pattern=r"^[A-Za-z0-9+/]+={0,2}$")
    truth: list[int]
    reference: list[int]
    artifact: list[int]
    dice_reference: float | None
    dice_artifact: float | None
    unequal_pixels: int


class Rate(Record):
    """How many, of how many, and the share with its interval."""

    count: int
    of: int
    rate_pct: Quantity


class Retention(Record):
    """Quality of the artifact on its own runtime beside the fp32 PyTorch model, on the same images."""

    data: str
    split: str
    split_note: str
    fingerprint: str
    images: int
    of_images: int
    patients: int
    runtime: str
    headline: str = Field(description="what Dice means here")
    dice_reference: Quantity
    dice_artifact: Quantity
    retention_pct: Quantity
    mask_agreement_pct: float
    mask_dice: float | None = Field(description="Dice of the two masks with each other")
    mean_abs_difference: float
    max_abs_difference: float
    false_alarms_reference: Rate
    false_alarms_artifact: Rate
    missed_reference: Rate
    missed_artifact: Rate
    protocols: dict[str, Any] = Field(description="Dice and retention under every protocol")
    scores: list[PatientScore]
    cases: list[Case]

    @property
    def score(self) -> str:
        """What accuracy is."""
        return "Dice"

    @property
    def reference(self) -> Quantity:
        """Of the fp32 model."""
        return self.dice_reference

    @property
    def artifact(self) -> Quantity:
        """Of the artifact."""
        return self.dice_artifact

    @property
    def agreement_pct(self) -> float:
        """How often the artifact decides as the fp32 model does."""
        return self.mask_agreement_pct

    @property
    def agreement_of(self) -> str:
        """What the agreement counts."""
        return "equal mask pixels"

    @property
    def groups(self) -> str:
        """What the images are of."""
        return f"{self.patients} patients"


class ClassScore(Record):
    """One class of the held-out set."""

    label: str
    images: int
    top1_reference: float
    top1_artifact: float


class ClassCase(Record):
    """One image that the artifact names otherwise than the fp32 model."""

    label: str
    image_webp: str = Field(description="base64", pattern=r"^[A-Za-z0-9+/]+={0,2}$")
    width: int
    height: int
    truth: str
    reference: str
    artifact: str
    probability_reference: float = Field(description="of its first class")
    probability_artifact: float


class ClassRetention(Record):
    """Accuracy of a classifier's artifact on its own runtime beside the fp32 PyTorch model, on the same images."""

    data: str
    split: str
    split_note: str
    fingerprint: str
    images: int
    of_images: int
    classes: int
    runtime: str
    top1_reference: Quantity
    top1_artifact: Quantity
    top5_reference: Quantity
    top5_artifact: Quantity
    retention_pct: Quantity = Field(description="of top-1")
    top5_retention_pct: Quantity
    same_class_pct: Quantity = Field(description="images with the same first class")
    lost: int = Field(description="images right by the fp32 model only")
    gained: int = Field(description="images right by the artifact only")
    mean_variation: float = Field(description="mean total variation distance of the probabilities")
    mean_abs_difference: float
    max_abs_difference: float
    scores: list[ClassScore]
    cases: list[ClassCase]

    @property
    def score(self) -> str:
        """What accuracy is."""
        return "top-1 accuracy"

    @property
    def reference(self) -> Quantity:
        """Of the fp32 model."""
        return self.top1_reference

    @property
    def artifact(self) -> Quantity:
        """Of the artifact."""
        return self.top1_artifact

    @property
    def agreement_pct(self) -> float:
        """How often the artifact decides as the fp32 model does."""
        return self.same_class_pct.value or 0.0

    @property
    def agreement_of(self) -> str:
        """What the agreement counts."""
        return "equal first classes"

    @property
    def groups(self) -> str:
        """What the images are of."""
        return f"{self.classes} classes"


class NotMeasured(Record):
    """Why a part of the report is missing, and what to do for it."""

    reason: str
    hint: str = ""
