"""Reads every file of one family under a limit, as a command would, and says what came of each.

Run as ``python -m tests.security.reading FAMILY``: one JSON object a line. Its own process, so that the limit
on memory and the watch on what is opened and started hold for this family alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

#: Bytes that reading a hostile file may take beyond what the imported program has.
MEMORY = 768 * 2**20
SECONDS = 30
VOC = dict(ann_file="set.txt", data_root=".", data_prefix=dict(sub_data_root="."))


def readers() -> dict:
    """Family to the name of its file, and what reads it."""
    from onebit.backbones import packed
    from onebit.classification import datasets as classification
    from onebit.classification.idx import read_idx
    from onebit.classification.predictions import Predictions
    from onebit.commons.checkpoint_reader import read_checkpoint
    from onebit.commons.images import read_image
    from onebit.detection import checks, predictions
    from onebit.leaderboards.commands.cell import _read
    from onebit.leaderboards.recording.record import Record
    from onebit.packed import runtime
    from onebit.reid import features, foreign

    def coco(path: Path) -> None:
        listed = checks._read_coco(dict(ann_file=path.name, data_root=".", data_prefix=dict(img=".")), ("cat",))
        checks._check_images(listed, set())

    def features_of_others(path: Path) -> None:
        foreign._read_features(path)
        features.load(path)

    return {
        "checkpoint": ("a.pth", read_checkpoint),
        "record": ("a.json", Record.load),
        "cell": ("a.json", lambda path: _read(str(path))),
        "cell text": ("a.txt", lambda path: _read(str(path))),
        "coco": ("a.json", coco),
        "voc": ("Annotations/1.xml", lambda path: checks._check_images(checks._read_voc(VOC, ("cat",)), set())),
        "features": ("a.safetensors", features_of_others),
        "packed": ("a.safetensors", packed.load),
        "packed plan": ("a.safetensors", runtime.load),
        "predictions": ("a.npz", Predictions.load),
        "boxes": ("a.json", lambda path: predictions.read(path, {1}, {1})),
        "cifar": ("cifar-10-batches-py/batches.meta", lambda path: classification.class_names(Path(), "cifar10")),
        "idx": ("train-images-idx3-ubyte", lambda path: read_idx(Path(), "train")),
        "image": ("a.png", read_image),
    }


def watch(seen: list[str]) -> None:
    """Note what no file may make this process do: start programs, connect, open what is not its business."""
    allowed = (os.getcwd(), sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]), tempfile.gettempdir())

    def hook(event: str, arguments: tuple) -> None:
        if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect"):
            seen.append(f"{event} {arguments[:1]}")
        if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith("/"):
            path = os.path.abspath(arguments[0])
            if not path.startswith((*allowed, "/proc/", "/usr/", "/dev/urandom")):
                seen.append(f"open {path}")

    sys.addaudithook(hook)


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def main(family: str) -> None:
    from onebit.leaderboards import cli
    from tests.security import canary
    from tests.security.corpus import FAMILIES

    drawn = dict(FAMILIES[family]())
    name, read = readers()[family]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for part, content in (("set.txt", "1\n"), ("train-labels-idx1-ubyte", "\0\0\x08\1\0\0\0\1\0")):
            Path(part).write_text(content)
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path("JPEGImages").mkdir()
        path = Path(name)
        path.write_bytes(b"")
        before = files_below(Path())

        def run(_) -> int:
            read(path)
            return 0

        class Parsed:
            def parse_args(self, _):
                return argparse.Namespace(run=run)

        cli.parser = Parsed
        cli.main([])  # what is imported late is imported now
        seen: list[str] = []
        watch(seen)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("it takes too long")))
        for title, content in drawn.items():
            path.write_bytes(content)
            seen.clear()
            out, err = io.StringIO(), io.StringIO()
            started = time.perf_counter()
            signal.alarm(SECONDS)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = cli.main([])
            signal.alarm(0)
            found = dict(
                title=title,
                code=code,
                out=out.getvalue()[:2000],
                err=err.getvalue()[:20_000],
                seen=seen[:5] + [f"called with {a}" for a in canary.sung],
                new=[p for p in files_below(Path()) if p not in before],
                seconds=round(time.perf_counter() - started, 2),
            )
            print(json.dumps(found), file=sys.__stdout__, flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main(sys.argv[1])
