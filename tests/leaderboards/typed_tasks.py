"""The type checker holds every task's module against the interface: the lint step reads this file, nothing runs it."""

from onebit.classification import task as classification
from onebit.commons.task import Task
from onebit.detection import task as detection
from onebit.reid import task as reid

CLASSIFICATION: Task = classification
DETECTION: Task = detection
REID: Task = reid
