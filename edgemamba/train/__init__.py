"""Training: recipes, the step, the loop, and the run folder it leaves.

``TrainConfig`` and ``resume_config`` need no torch; ``train`` does and is imported when it is first asked
for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgemamba.train.config import TrainConfig, resume_config

if TYPE_CHECKING:
    from edgemamba.train.loop import train

__all__ = ["TrainConfig", "resume_config", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from edgemamba.train.loop import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
