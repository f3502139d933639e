"""Options that several verbs share."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from onebit.commons import guards
from onebit.commons.datasets import default_data_root
from onebit.commons.errors import InputError
from onebit.commons.task import TASKS as TASKS

T = TypeVar("T")


def add_verb(verbs, name: str, run, summary: str, examples: str) -> argparse.ArgumentParser:
    """A parser for one verb, with its examples below the options."""
    parser = verbs.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, metavar="DIR", help="the data root (default: $ONEBIT_DATA, else ./data)")


def add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("leaderboards"),
        metavar="DIR",
        help="records are in DIR/records, tables in DIR/tables (default: ./leaderboards)",
    )


def add_records(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--records",
        type=Path,
        metavar="DIR",
        help="the folder of records (default: $ONEBIT_RECORDS, else ./leaderboards/records, else the checkout's)",
    )


def records_of(args: argparse.Namespace) -> Path:
    """The folder of records of a command that reads them; when it is done, the command line says which."""
    from onebit.leaderboards.recording.place import records_folder

    args.read = records_folder(args.records)
    return args.read


def add_cfg_options(parser: argparse.ArgumentParser, example: str = "train_cfg.max_epochs=2") -> None:
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help=f"override config values, e.g. {example}"
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """What every task calls by the same name; :func:`training_options` reads it."""
    common = parser.add_argument_group("of every task, in place of what the recipe says")
    common.add_argument(
        "--epochs",
        type=whole_number(),
        metavar="N",
        help="the steps of a stepped schedule stay where the recipe has them",
    )
    common.add_argument("--batch", type=whole_number(), metavar="N", help="images per training step and process")
    common.add_argument("--lr", type=number(0), metavar="X", help="learning rate")
    common.add_argument(
        "--size", type=whole_number(), nargs="+", metavar="N", help="height and width of images in pixels; one for both"
    )
    add_detector(parser, "faster_rcnn (default), retinanet or fcos")


def add_detector(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("--detector", metavar="D", help=f"detection: {help}")


def training_options(args: argparse.Namespace, task: str) -> dict[str, Any]:
    """``--epochs``, ``--batch``, ``--lr``, ``--size``, ``--detector`` and ``--cfg-options`` as options of the task's
    config.

    Raises:
        InputError: the same thing given twice, or a size that the task's images cannot have.
    """
    from onebit.commons.task import common_options
    from onebit.leaderboards.boards import runner

    options = cfg_options(args.cfg_options)
    common = {
        name: vars(args)[name] for name in ("epochs", "batch", "lr", "size", "detector") if vars(args)[name] is not None
    }
    return common_options(runner(task), options, **common) if common else options


def add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="PKG",
        help="import a package that brings binarizers, backbones or datasets (may be repeated)",
    )


def request_imports(args: argparse.Namespace) -> None:
    """Have the packages of ``--import`` imported when a backbone or dataset is looked up.

    By way of the environment, which every process that this one starts inherits.
    """
    before = [name for name in os.environ.get("ONEBIT_IMPORT", "").split(",") if name]
    names = list(dict.fromkeys([*before, *getattr(args, "imports", ())]))
    if names:
        os.environ["ONEBIT_IMPORT"] = ",".join(names)


def data_root(args: argparse.Namespace) -> Path:
    return args.data or default_data_root()


def cfg_options(pairs: list[str], option: str = "--cfg-options") -> dict[str, Any]:
    """Parse ``key=value`` pairs as mmengine's tools do; ``option`` is named in errors.

    Raises:
        InputError: a pair without ``=``.
    """
    if not pairs:
        return {}
    for value in key_values(option, pairs).values():
        for part in re.split(r"[][(), ]", value):
            if _is_odd_number(part):
                raise InputError(f"{option} {part!r}: expected a number in plain digits")
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", nargs="+", action=DictAction)
    return parser.parse_args(["--pairs", *pairs]).pairs


def _is_odd_number(text: str) -> bool:
    """Whether ``float``, with which mmengine reads it, takes 1_0 or the digits of other scripts for a number."""
    try:
        float(text)
    except ValueError:
        return False
    return re.fullmatch(r"[0-9A-Za-z.+-]*", text) is None


def key_values(option: str, pairs: list[str]) -> dict[str, str]:
    """``KEY=VALUE`` pairs as a dict of strings.

    Raises:
        InputError: a pair without ``=``; the message names ``option``.
    """
    for pair in pairs:
        if "=" not in pair:
            raise InputError(f"{option} takes KEY=VALUE, got {pair!r}")
    return dict(pair.split("=", 1) for pair in pairs)


def comma_list(text: str) -> list[str]:
    """What commas separate, at least one part, for argparse."""
    if parts := [part for part in text.split(",") if part]:
        return parts
    raise argparse.ArgumentTypeError(f"{text!r}: expected something like a,b")


def whole_number(least: int = 1, most: int | None = None) -> Callable[[str], int]:
    """An argparse type: a whole number in plain digits within these limits."""
    return _argument(lambda text: guards.whole("", guards.plain_number(text), least, most))


def number(least: float | None = None, most: float | None = None, **limits: float) -> Callable[[str], float]:
    """An argparse type: a number in plain digits within these limits."""
    return _argument(lambda text: guards.number("", guards.plain_number(text), least, most, **limits))


def _argument(read: Callable[[str], T]) -> Callable[[str], T]:
    def argument(text: str) -> T:
        try:
            return read(text)
        except InputError as error:  # argparse names the option, and does not show the text of other errors
            raise argparse.ArgumentTypeError(str(error)) from None

    return argument


seed = whole_number(0, 2**32 - 1)


def seed_list(text: str) -> list[int]:
    return [seed(part) for part in comma_list(text)]
