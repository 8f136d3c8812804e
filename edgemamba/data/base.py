"""What every data set is: samples with id, patient and number, and for each a picture with its mask."""

from __future__ import annotations

import abc
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    UInt8 = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One slice or picture.

    Attributes:
        id: unique in its data set; its SHA-256 decides the image split.
        patient: whom it belongs to; its SHA-256 decides the patient split.
        number: position among the patient's samples (slice number of a volume).
    """

    id: str
    patient: str
    number: int


class Dataset(abc.ABC):
    """A data set that has been found and listed; pixels are read on demand.

    Attributes:
        name: key of the catalogue's table.
        root: folder of the files, or None where they are generated.
        options: what :func:`edgemamba.data.open_dataset` needs besides name and root to open it again.
        samples: ordered by patient, then number.
        grouped: whether the data set says which samples belong to one patient.
        note: how it differs from the record it was opened by; empty where it does not.
    """

    name: str
    root: Path | None
    options: dict[str, Any]
    samples: tuple[Sample, ...]
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
    def read(self, index: int) -> tuple[UInt8, UInt8]:
        """Sample ``index`` at its own size: image uint8 (H, W, 3) RGB, mask uint8 (H, W) of 0 and 1.

        Raises:
            InputError: a file is damaged, or image and mask do not fit together.
        """

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 over the sorted sample ids and their contents, wherever the root lies."""
