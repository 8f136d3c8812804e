"""What depends on the meaning of a network's output: how outputs are compared and judged, what a Bundle's golden file
holds, which images calibrate, and the words for people. A new task is one module here, its row below and its class in
``board/outputs.py``."""

from __future__ import annotations

from edgemamba.registry import Task
from edgemamba.tasks.base import Bar, TaskRules
from edgemamba.tasks.classification import Classification
from edgemamba.tasks.segmentation import Segmentation
from edgemamba.tasks.tensor import TensorTask

__all__ = ["Bar", "TaskRules", "rules_of"]

_RULES: dict[str, TaskRules] = {rules.name: rules for rules in (Segmentation(), Classification(), TensorTask())}


def rules_of(task: Task | str) -> TaskRules:
    """The rules of a task."""
    return _RULES[task]
