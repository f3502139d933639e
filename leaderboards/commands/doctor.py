"""`onebit doctor`: what works on this machine."""

from __future__ import annotations

from onebit.leaderboards.commands.options import add_data, add_import, add_verb, data_root


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "doctor",
        run,
        "say what works on this machine, and how to get datasets",
        """\
onebit doctor
onebit doctor --data /datasets""",
    )
    add_data(parser)
    add_import(parser)


def run(args) -> int:
    import shutil
    from pathlib import Path

    import torch

    from onebit.commons.datasets import DATASETS
    from onebit.commons.errors import InputError
    from onebit.commons.provenance import versions
    from onebit.leaderboards.running.environment import code_version, device_name

    print("versions")
    for name, version in versions().items():
        print(f"  {name:<14} {version}")
    code = code_version()
    if code.commit:
        print(f"  {'commit':<14} {code.commit[:12]}{' (with local changes)' if code.dirty else ''}")

    from onebit import backbones
    from onebit.commons import plugins

    try:
        backbones.list_backbones()
        packages = plugins.loaded()
    except InputError as error:
        packages = {"-": str(error)}
    if packages:
        print("\npackages with binarizers, backbones or datasets")
        for name, how in packages.items():
            print(f"  {name:<14} {how}")

    print("\ndevice")
    gpu = torch.cuda.is_available()
    print(
        f"  {device_name()}" + ("" if gpu else f", {torch.get_num_threads()} threads; no GPU: training runs on the CPU")
    )
    print(f"  {shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB free in {Path.cwd()}")

    print("\noperators of detection: a compiled mmcv, else torchvision's, else plain torch (fallback)")
    if {"mmcv", "mmcv-lite"} <= versions().keys():
        print("  mmcv and mmcv-lite are both installed, in one folder: uninstall both, then install one of them")
    try:
        from onebit.detection.operators import operator_sources
    except InputError as error:
        print(f"  {error}")
    else:
        for name, (status, reason) in operator_sources("cuda" if gpu else "cpu").items():
            print(f"  {name:<31} {status:<11} {reason}")

    from onebit.packed import engine

    print(f"\nkernels of packed networks\n  {engine.instructions()}")

    root = data_root(args)
    print(f"\ndatasets below {root}")
    for dataset in DATASETS.registered.values():
        try:
            print(f"  {dataset.name:<18} {dataset.find(root)}")
        except InputError as error:
            print(f"  {dataset.name:<18} {str(error).removeprefix(f'dataset {dataset.name} ')}")
    return 0
