"""The one interface between the leaderboards and the three tasks.

`leaderboards` builds a `Job`, hands it to a `Task` and gets an `Outcome` back. Nothing else travels between
the rooms. ``<task>/task.py`` is the module that fulfils `Task`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

from onebit.commons import guards
from onebit.commons.datasets.detection import FASTER_RCNN
from onebit.commons.errors import InputError
from onebit.commons.file_options import FileOptions, Schema

#: The rooms that fulfil :class:`Task`.
TASKS = ("classification", "detection", "reid")


@dataclass(frozen=True)
class Job:
    """One row to be trained and scored.

    Attributes:
        dataset: a name of :data:`onebit.commons.datasets.DATASETS`.
        backbone: a name that :func:`onebit.backbones.create_backbone` knows.
        recipe: a name of :func:`recipes`.
        seed: the only source of randomness.
        data_root: the folder below which the dataset is looked for.
        work_dir: checkpoints, logs and the dumped config go here.
        resume: go on from the last checkpoint in ``work_dir``, if there is one.
        cfg_options: dotted overrides of the config, as mmengine's ``--cfg-options``: the user's own.
        recorded: those that a record or a checkpoint states, below the user's.
        config: of detection, the user's own config: the detector is its, and so is the data where ``dataset`` is empty.
    """

    dataset: str
    backbone: str
    recipe: str
    seed: int
    data_root: Path
    work_dir: Path
    resume: bool = False
    cfg_options: Mapping[str, Any] = field(default_factory=dict)
    recorded: FileOptions = field(default_factory=FileOptions)
    config: Path | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.recorded, FileOptions) or isinstance(self.cfg_options, FileOptions):
            raise TypeError("options of a file and options of the user are different things")

    @property
    def options(self) -> dict[str, Any]:
        """All options, the user's over those of a file."""
        return {**self.recorded, **self.cfg_options}


def left_out(job: Job) -> dict[str, list[str]]:
    """What an outcome says of options that a file stated and that were not taken from it."""
    return {"options_left_out": sorted(job.recorded.left_out)} if job.recorded.left_out else {}


@dataclass
class Outcome:
    """What a runner returns: plain values only, ready for a record.

    Attributes:
        metrics: name to value in full precision; fractions in [0, 1], not percent.
        untrained: the same metrics of the same network before its first step (None after `test`).
        main_metric: the key of ``metrics`` that ranks rows.
        epochs: epochs actually trained.
        split: which images were trained on and scored, e.g. ``trainval07+12 -> test07``.
        protocol: how they were scored, e.g. ``VOC2007, IoU 0.5, area and 11-point AP``.
        data_checksum: see :meth:`onebit.commons.datasets.Dataset.checksum`.
        config: the full text of the config that ran.
        checkpoint: the trained weights; None where a file of predictions was scored.
        cost: convention to the summary of :class:`onebit.backbones.Cost` of the WHOLE model of the task.
        num_classes: classes or training identities.
        details: further plain values for the record (per-class AP, loss curve, ...). ``network``
            among them is what :func:`onebit.backbones.describe` says of the network that was built, which
            ``cfg_options`` may have made another than the name's.
        predictions: the file of what the network put out on the scored images, from which
            ``<task>.runner.score_predictions`` computes the same metrics again without the network;
            None where the task keeps none.
    """

    metrics: dict[str, float]
    untrained: dict[str, float] | None
    main_metric: str
    epochs: int
    split: str
    protocol: str
    data_checksum: str
    config: str
    checkpoint: Path | None
    cost: dict[str, dict[str, Any]]
    num_classes: int
    details: dict[str, Any] = field(default_factory=dict)
    predictions: Path | None = None


class Predictor(Protocol):
    """A trained network for images; `Task.predictor` makes it."""

    @property
    def task(self) -> str:
        """One of :data:`TASKS`."""

    def read(self, path: str | Path) -> Any:
        """An image as the network was trained on such: uint8 [H, W, 3], RGB."""

    def __call__(self, image: Any) -> dict[str, Any]:
        """What the network says of such an image, in plain values."""

    def draw(self, image: Any, result: dict[str, Any]) -> Any:
        """A picture of the image with the result, as Pillow has it."""


class Task(Protocol):
    """What a task offers; every function raises :class:`InputError` on bad input.

    A task that lacks something says so in ``LACKS``, and its function of that name is :func:`lacking`.
    """

    @property
    def LACKS(self) -> Mapping[str, str]:
        """What is not offered (functions of this interface, ``show_score``, ``import_options``, ``detector``) to the
        sentence that says what there is."""

    @property
    def FILE_OPTIONS(self) -> Schema:
        """What a record or a checkpoint may set of the config."""

    @property
    def KEYS(self) -> Mapping[str, str]:
        """The config keys of what every task calls ``epochs``, ``batch`` (images per training step) and ``lr``, and of
        ``detector``, which detection alone has."""

    @property
    def TRIAL(self) -> tuple[str, Mapping[str, Any]]:
        """A mini dataset, and options that leave a few steps of its mini recipe."""

    @property
    def PACKAGES(self) -> tuple[str, ...]:
        """What makes its rows: distributions whose versions a record must name."""

    def operators(self) -> Mapping[str, str]:
        """Whose compiled operators are used here, by name: ``native``, ``torchvision`` or ``fallback``; empty for none."""

    def train(self, job: Job) -> Outcome:
        """Train and score a row."""

    def train_config(self, config: Path, job: Job) -> Outcome:
        """Train and score what the user's own config describes."""

    def test(self, checkpoint: Path, job: Job, packed: bool = False) -> Outcome:
        """Score a checkpoint that `train` wrote, or `train_config` by ``job.config``; ``packed`` scores the network with
        1-bit kernels, on the CPU."""

    def test_packed_file(self, path: Path, job: Job) -> Outcome:
        """Score a packed file, on the CPU."""

    def score_checkpoint(
        self, checkpoint: Path, job: Job, model: str | None = None, config: Path | None = None
    ) -> Outcome:
        """Score a checkpoint that was trained elsewhere, of the named model or config."""

    def check_predictions(self, job: Job) -> None:
        """Raise InputError where `score_predictions` needs more of a user's job, or cannot take its options."""

    def score_predictions(self, predictions: Path, job: Job) -> Outcome:
        """Score what a network put out, without the network."""

    def import_predictions(self, predictions: Path, job: Job, /) -> Outcome:
        """Score what another program's network put out."""

    def predictor(self, path: Path, packed: bool = False, config: Path | None = None) -> Predictor:
        """The network of a checkpoint, for images; ``packed`` runs it with 1-bit kernels, on the CPU."""

    def pack(self, checkpoint: Path, file: Path, real: str = "float32") -> Path:
        """Write the whole network of a checkpoint on packed bits, for `predictor`."""

    def agreement(self, one: Path, other: Path, /) -> float:
        """The fraction in [0, 1] of two files of predictions that agrees."""

    def show(self, outcome: Outcome, job: Job, folder: Path, count: int, score: float | None = None) -> list[Path]:
        """Draw at most ``count`` pictures of what was predicted, of scores from ``score`` up."""

    def config_of(self, job: Job, folder: Path | None) -> tuple[str, int] | None:
        """A row's config as text, and its epochs; None where that takes the dataset in ``folder``."""

    def size_options(self, height: int, width: int) -> dict[str, Any]:
        """The config options by which the network sees images of this size in pixels."""

    def model_cost(
        self, backbone: str, convention: str, input_size: tuple[int, int] | None = None, num_classes: int | None = None
    ) -> Any:
        """The :class:`onebit.backbones.Cost` of the whole model for one image; a task may take further options."""


def recipes(task: str) -> dict[str, Path]:
    """The recipes of a task by name, and their files."""
    folder = Path(__file__).resolve().parents[1] / task / "configs" / "recipes"
    return {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}


def recipe_file(task: str, name: str) -> Path:
    """The file of a recipe.

    Raises:
        InputError: the task has no such recipe; the message lists those it has.
    """
    found = recipes(task)
    guards.known(f"recipe of {task}", name, found)
    return found[name]


def require_offered(task: Task, what: str) -> None:
    """Raise InputError where ``task`` lacks ``what``, with the sentence that says what it has instead."""
    if what in task.LACKS:
        raise InputError(task.LACKS[what])


def common_options(
    task: Task,
    options: Mapping[str, Any],
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    size: int | Sequence[int] | None = None,
    detector: str | None = None,
) -> dict[str, Any]:
    """Options of a task's config together with what every task calls by the same name; None leaves the recipe's.

    Args:
        options: of this task's config, by dotted key.
        epochs: for how many to train.
        batch: images per training step and process.
        lr: learning rate.
        size: height and width of images in pixels, or one number for both.
        detector: of detection alone: ``faster_rcnn``, ``retinanet`` or ``fcos``.

    Raises:
        InputError: a value out of range, a size that the task's images cannot have, the same thing given twice, or a
            detector for another task.
    """
    found: dict[str, dict[str, Any]] = {}
    if epochs is not None:
        found["epochs"] = {task.KEYS["epochs"]: guards.whole("epochs", epochs)}
    if batch is not None:
        found["batch"] = {task.KEYS["batch"]: guards.whole("batch", batch)}
    if lr is not None:
        found["lr"] = {task.KEYS["lr"]: guards.number("lr", lr, 0)}
    if size is not None:
        sides = [guards.whole("size", side) for side in (size if isinstance(size, list | tuple) else [size])]
        if len(sides) not in (1, 2):
            raise InputError(f"size takes height and width, or one number for both; got {len(sides)} numbers")
        found["size"] = task.size_options(sides[0], sides[-1])
    if detector is not None:
        require_offered(task, "detector")
        found["detector"] = {task.KEYS["detector"]: detector}
    for name, common in found.items():
        if twice := sorted(common.keys() & options.keys()):
            raise InputError(f"option {twice[0]} says what {name} says too: leave out one")
    if detector == FASTER_RCNN:  # the row is that of those who do not say it
        del found["detector"]
    return {key: value for common in (*found.values(), options) for key, value in common.items()}


def lacking(sentence: str) -> Callable[..., NoReturn]:
    """A function of :class:`Task` that a task does not offer: it raises InputError with ``sentence``."""

    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise InputError(sentence)

    return refuse
