"""`onebit predict`: a trained network on pictures."""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import add_import, add_verb, number, whole_number


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "predict",
        run,
        "use a trained network on pictures, videos or a camera",
        """\
onebit predict run/epoch_10.pth cat.jpg dog.jpg
onebit predict net.safetensors pictures --out out
onebit predict detector.pth street.mp4 --score 0.5 --packed --out out
onebit predict detector.pth "shots/*.png" --out out
ls shots/*.jpg | onebit predict detector.pth - --out out
onebit predict detector.pth 0 --frames 100 --out out
onebit predict reid.pth query.jpg --gallery crops --top 10 --out out""",
    )
    parser.add_argument(
        "network",
        type=Path,
        metavar="CHECKPOINT|PACKED",
        help="what `onebit train` wrote, or a classifier that `onebit export` packed",
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="a picture, a folder, a pattern, a video, the number of a camera, or - for paths on standard input",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write predictions.json and a picture of every image, or a video of every video, to DIR",
    )
    parser.add_argument("--packed", action="store_true", help="run the network with 1-bit kernels, on the CPU")
    parser.add_argument(
        "--top", type=whole_number(), default=5, metavar="N", help="classes or ranks that are shown (default 5)"
    )
    parser.add_argument(
        "--score",
        type=number(0, 1),
        metavar="S",
        help="detection: leave out boxes below this score (default 0.3 in print and pictures, 0 in the JSON)",
    )
    parser.add_argument(
        "--gallery", metavar="DIR", help="reid: the images that are ranked by how near they are to each IMAGE"
    )
    parser.add_argument("--frames", type=whole_number(), metavar="N", help="of a video or camera, at most")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="C",
        help="the MMDetection config that a detector was trained by (Python, which is run), where it was not a recipe",
    )
    add_import(parser)


def run(args) -> int:
    import json
    import sys
    import time

    from onebit.commons.errors import InputError
    from onebit.commons.files import write_atomic
    from onebit.leaderboards.predicting import load, sources

    network = load(args.network, packed=args.packed, config=args.config)
    if (args.gallery is None) != (network.task != "reid"):
        raise InputError(
            "a re-ID network ranks images: name their folder with --gallery DIR"
            if network.task == "reid"
            else f"--gallery is for re-ID networks; {args.network} is of {network.task}"
        )
    if args.score is not None and network.task != "detection":
        raise InputError(f"--score is for detectors; {args.network} is of {network.task}")
    gallery = []
    if args.gallery:
        gallery = [(source.name, network(source.image)) for source in sources([args.gallery])]
    rows: list[dict] = []
    unread, videos, seconds, count = 0, {}, 0.0, 0
    try:
        for at, source in enumerate(sources(args.images, args.frames), start=1):
            started = time.perf_counter()
            try:
                image = network.as_array(source.image)
            except InputError as error:
                print(f"onebit: {error}", file=sys.stderr)
                unread += 1
                continue
            result = network(image)
            count += 1
            if count > 1:  # the first one waits for what is compiled and allocated once
                seconds += time.perf_counter() - started
            text, shown, found = _told(network, result, gallery, args)
            print(f"{source.name}: {text}", flush=True)
            rows += [{"image_id": at, "file_name": source.name, **row} for row in found]
            if args.out:
                _draw(network.draw(image, shown), source, at, args.out, videos)
    except KeyboardInterrupt:
        if not count:
            raise
        print("stopped", file=sys.stderr)
    finally:
        for video in videos.values():
            video.release()
    if args.out and count:
        write_atomic(args.out / "predictions.json", json.dumps(rows))
        print(f"{args.out / 'predictions.json'}: {len(rows)} entries, and pictures beside it")
    if count:
        speed = f", {(count - 1) / seconds:.3g} a second after the first, with reading and preparing" if seconds else ""
        print(f"{count} image{'s' * (count > 1)}{speed}")
    return 1 if unread else 0


def _told(network, result: dict, gallery: list, args) -> tuple[str, dict, list[dict]]:
    """A result in words, what a picture shows of it, and its entries of the JSON."""
    if network.task == "classification":
        classes = result["classes"][: args.top]
        return (
            ", ".join(f"{c['class']} {c['score']:.3f}" for c in classes),
            {"classes": classes},
            [{"classes": classes}],
        )
    if network.task == "detection":
        from onebit.detection.predictor import counted

        least = 0.3 if args.score is None else args.score
        shown = {"boxes": [box for box in result["boxes"] if box["score"] >= least]}
        kept = result["boxes"] if args.score is None else shown["boxes"]
        rows = [
            {"category_id": b["category_id"], "category": b["class"], "bbox": b["bbox"], "score": b["score"]}
            for b in kept
        ]
        return counted(shown), shown, rows
    ranked = network.predictor.rank(result, [features for _, features in gallery])[: args.top]
    ranking = [{"file_name": gallery[at][0], "distance": distance} for at, distance in ranked]
    return (
        ", ".join(f"{r['file_name']} {r['distance']:.4g}" for r in ranking),
        {"ranking": ranking},
        [{"ranking": ranking}],
    )


def _draw(picture, source, at: int, folder: Path, videos: dict) -> None:
    """Write one picture, or one more frame of a video that is kept open in ``videos``."""
    import io
    import re

    from onebit.commons.errors import WorkError
    from onebit.commons.files import write_atomic

    if not source.video:
        stream = io.BytesIO()
        picture.save(stream, format="PNG")
        stem = re.sub(r"[^\w.-]", "_", Path(source.name).stem)
        write_atomic(folder / f"{at:05}_{stem}.png", stream.getvalue())
        return
    import cv2
    import numpy as np

    path = folder / f"{Path(source.video).stem}.mp4"
    if source.video not in videos:
        folder.mkdir(parents=True, exist_ok=True)
        videos[source.video] = cv2.VideoWriter(
            str(path), cv2.VideoWriter.fourcc(*"mp4v"), source.rate, (picture.width, picture.height)
        )
        if not videos[source.video].isOpened():
            raise WorkError(f"cannot write the video {path}")
    videos[source.video].write(np.asarray(picture)[..., ::-1])
