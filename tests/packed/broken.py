"""Packed files whose plans are not what they say, with checksums that fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from onebit.packed import container, engine


def changed_plan(path: Path, target: Path, change: Callable) -> Path:
    """The file with its tensors changed, and a checksum that fits."""
    tensors = load_file(path)
    text = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])["__metadata__"][
        "onebit"
    ]
    about = json.loads(text)
    change(about["plans"], tensors)
    text = json.dumps(about, sort_keys=True)
    save_file(tensors, target, {"onebit": text, "sha256": container.digest(text, tensors)})
    return target


def cell(name: str, row: int, value: int):
    def change(plans, tensors):
        tensors["plan/steps"][row, len(engine.kernels().ADDRESSES) + plans["fields"].index(name)] = value

    return change


def piece(name: str, row: int, value: int):
    def change(plans, tensors):
        tensors["plan/steps"][row, engine.kernels().ADDRESSES.index(name)] = value

    return change


def tensor(name: str, value):
    return lambda plans, tensors: tensors.update({f"plan/{name}": value(tensors[f"plan/{name}"])})


def constant(column: int, value: int, row: int = 0):
    def change(plans, tensors):
        tensors["plan/constants"][row, column] = value

    return change


BROKEN = {
    "an unknown kernel": (cell("kind", 1, 99), "step 1: it is of no known kind"),
    "a negative kernel": (cell("kind", 1, -1), "step 1: it is of no known kind"),
    "an input beyond memory": (cell("src", 1, 2**31 - 64), "step 1: its src lies outside of its memory"),
    "an output beyond memory": (cell("out_row", 2, 2**20), "step 2: its out lies outside of its memory"),
    "an output among the constants": (piece("out", 2, 1), "step 2: its out is not where steps may write|outside"),
    "an output in the input": (piece("out", 0, 3), "step 0: its out is not where steps may write|outside"),
    "an unknown piece": (piece("out", 0, 77), "step 0: it is of no known kind"),
    "indices in memory that is written": (piece("offsets", 1, 0), "step 1: its offsets is no constant"),
    "more filters": (cell("filters", 1, 4096), "outside of its memory"),
    "fewer filters": (cell("filters", 1, 1), "contradict"),
    "no tasks": (cell("tasks", 1, 0), "contradict"),
    "no width": (cell("width", 1, 0), "contradict"),
    "tasks beyond the map": (cell("tasks", 1, 2**30), "contradict|outside"),
    "no taps": (cell("length", 1, 0), "contradict"),
    "no stride": (cell("stride_x", -2, 0), "contradict"),
    "an arena that is too small": (lambda p, t: p["sizes"][0].update(arena=64), "outside of its memory"),
    "an arena that is too large": (lambda p, t: p["sizes"][0].update(arena=2**40), "not of the form"),
    "an output of no size": (lambda p, t: p["sizes"][0].update(outputs=[[]]), "not of the form"),
    "an output that is large": (lambda p, t: p["sizes"][0].update(outputs=[[2**16] * 3]), "not of the form"),
    "a smaller output": (lambda p, t: p["sizes"][0].update(outputs=[[1]]), "its out lies outside"),
    "a smaller input": (lambda p, t: p["sizes"][0].update(input=[3, 32, 31]), "step 0: its src lies outside"),
    "no plans": (lambda p, t: p.update(sizes=[]), "not of the form"),
    "plans that are a text": (lambda p, t: p.update(sizes="ab"), "not of the form"),
    "steps that are not there": (lambda p, t: p["sizes"][0].update(steps=10**4), "other steps than they say"),
    "a true number of steps": (lambda p, t: p["sizes"][0].update(steps=True), "not of the form"),
    "other fields": (lambda p, t: p["fields"].reverse(), "another version of the suite"),
    "other blocks": (lambda p, t: p.update(blocks=[1, 1]), "another version of the suite"),
    "a recipe that is unknown": (constant(0, 99), "unknown recipe"),
    "a recipe before the first": (constant(0, -2), "unknown recipe"),
    "a tensor that is not there": (constant(1, 10**6), "unknown recipe or tensor"),
    "other tensors for a recipe": (constant(0, 1), "words takes other tensors|signs take"),
    "values beyond the tensor": (
        lambda p, t: t["plan/constants"].__setitem__((t["plan/constants"][:, 0] == -1, 6), 2**30),
        "outside of its tensor",
    ),
    "a flat table": (tensor("steps", lambda v: v.ravel()), "other steps than they say"),
    "floats for steps": (tensor("steps", lambda v: v.astype(np.float32)), "missing or of other types"),
    "no values": (lambda p, t: t.pop("plan/values"), "missing or of other types"),
    "a border beyond memory": (
        lambda p, t: (p["sizes"][0].update(filled=1), t.update({"plan/kept": np.array([[2**40, 1]])})),
        "a border lies outside",
    ),
    "a border before memory": (
        lambda p, t: (p["sizes"][0].update(filled=1), t.update({"plan/kept": np.array([[-1, 1]])})),
        "a border lies outside",
    ),
}
