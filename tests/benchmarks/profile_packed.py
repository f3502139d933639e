"""Where the processor time of a packed network goes, by function.

    python tests/benchmarks/profile_packed.py resnet18_reactnet dcp_nas_m

One image of 224x224, one thread; the profiler's own cost falls on the Python around the kernels.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from onebit import backbones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backbones", nargs="+")
    parser.add_argument("--repeat", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.backbones:
        network = backbones.deploy(backbones.create_backbone(name, out_indices=(3,)).eval())
        image = torch.randn(1, 3, 224, 224).contiguous(memory_format=torch.channels_last)
        profile = cProfile.Profile(time.thread_time)
        with torch.inference_mode():
            for _ in range(5):
                network(image)
            profile.enable()
            for _ in range(args.repeat):
                network(image)
            profile.disable()
        print(f"{name}, {args.repeat} inferences")
        pstats.Stats(profile).sort_stats("tottime").print_stats(8)


if __name__ == "__main__":
    main()
