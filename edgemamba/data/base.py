"""What every data set is: samples with id, patient and number, and for each a picture with what is true of it."""

from __future__ import annotations

import abc
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from edgemamba.registry import Task

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    UInt8 = npt.NDArray[np.uint8]
    # A mask uint8 (H, W) of 0 and 1, or a class as an integer of no axes.
    Truth = npt.NDArray[Any]

# Part of a data set that comes divided; empty where nothing is said.
Part = Literal["train", "val", "test", ""]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One slice or picture.

    Attributes:
        id: unique in its data set; its SHA-256 decides the image split.
        patient: whom it belongs to; its SHA-256 decides the patient split.
        number: position among the patient's samples (slice number of a volume).
        part: where the data set itself puts it.
    """

    id: str
    patient: str
    number: int
    part: Part = ""


class Dataset(abc.ABC):
    """A data set that has been found and listed; pixels are read on demand.

    Attributes:
        task: what is known of a sample: segmentation a mask, classification a class.
        name: key of the catalogue's table.
        root: folder of the files, or None where they are generated.
        options: what :func:`edgemamba.data.open_dataset` needs besides name and root to open it again.
        samples: ordered by patient, then number.
        labels: names of the classes, in their order; empty where there are masks.
        grouped: whether the data set says which samples belong to one patient.
        note: how it differs from the record it was opened by; empty where it does not.
    """

    task: ClassVar[Task] = "segmentation"
    name: str
    root: Path | None
    options: dict[str, Any]
    samples: tuple[Sample, ...]
    labels: tuple[str, ...] = ()
    grouped: bool = True
    note: str = ""

    @property
    def label(self) -> str:
        """Name, with the note where there is one."""
        return f"{self.name} ({self.note})" if self.note else self.name

    def published(self) -> bool:
        """Whether these are exactly the samples of one published data set, in whatever encoding."""
        return False

    @abc.abstractmethod
    def read(self, index: int) -> tuple[UInt8, Truth]:
        """Sample ``index`` at its own size: image uint8 (H, W, 3) RGB and its mask or class.

        Raises:
            InputError: a file is damaged, or image and mask do not fit together.
        """

    def truth_at(self, truth: Truth, size: tuple[int, int]) -> Truth:
        """What ``read`` gave beside an image that is now ``size`` = (h, w): the mask by nearest pixel."""
        from edgemamba.board import images

        return images.resize_mask(truth, size)

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 over the sorted sample ids and their contents, wherever the root lies."""


class ClassDataset(Dataset):
    """A data set of pictures of one class each.

    Attributes:
        targets: class of each sample.
    """

    task = "classification"
    targets: tuple[int, ...]

    @abc.abstractmethod
    def picture(self, index: int) -> UInt8:
        """Sample ``index`` at its own size, uint8 (H, W, 3) RGB.

        Raises:
            InputError: the file is damaged.
        """

    def read(self, index: int) -> tuple[UInt8, Truth]:
        """See :meth:`Dataset.read`."""
        import numpy as np

        return self.picture(index), np.asarray(self.targets[index])

    def truth_at(self, truth: Truth, size: tuple[int, int]) -> Truth:
        """See :meth:`Dataset.truth_at`: a class has no size."""
        del size
        return truth
