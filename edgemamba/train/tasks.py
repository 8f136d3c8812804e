"""The table of what can be trained."""

from __future__ import annotations

from collections.abc import Mapping

from edgemamba.registry import Task
from edgemamba.train.classification import ClassificationTask
from edgemamba.train.segmentation import SegmentationTask
from edgemamba.train.task import TrainTask

TASKS: Mapping[Task, type[TrainTask]] = {task.name: task for task in (SegmentationTask, ClassificationTask)}
