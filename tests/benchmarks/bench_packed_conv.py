"""The packed 1-bit convolution against oneDNN's float convolution, layer by layer.

    python tests/benchmarks/bench_packed_conv.py --threads 1 --repeat 100

3x3 convolutions of ResNet-18 at 224x224, batch 1: packing of the input and everything that follows
the sums included. The float convolution is torch's (oneDNN), once as torch calls it and once with its
weights in oneDNN's own layout beforehand. They take turns in one process; medians.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn
from torch.utils import mkldnn

from onebit.backbones.conv import OneBitConv2d
from onebit.backbones.packed.layers import PackedConv

SHAPES = ((64, 56), (128, 28), (256, 14), (512, 7))


def contenders(channels: int, size: int):
    """Three functions without arguments, by name."""
    x = torch.randn(1, channels, size, size)
    last = x.contiguous(memory_format=torch.channels_last)
    packed = PackedConv(OneBitConv2d(channels, channels, 3, padding=1, binarizer="bireal").eval())
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False).eval()
    dense = mkldnn.to_mkldnn(conv)
    reordered = x.to_mkldnn()
    conv_last = nn.Conv2d(channels, channels, 3, padding=1, bias=False).eval()
    conv_last = conv_last.to(memory_format=torch.channels_last)
    return {
        "packed": lambda: packed(last),
        "torch": lambda: conv_last(last),
        "oneDNN, prepacked": lambda: dense(reordered),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"{'layer':>12}  {'packed ms':>9}  {'torch ms':>8}  {'oneDNN ms':>9}  ratios")
    with torch.inference_mode():
        for channels, size in SHAPES:
            runs = contenders(channels, size)
            times: dict[str, list[float]] = {name: [] for name in runs}
            for turn in range(args.repeat + 5):
                for name, run in runs.items():
                    before = time.perf_counter()
                    run()
                    if turn >= 5:
                        times[name].append((time.perf_counter() - before) * 1e3)
            ours, torchs, dense = (statistics.median(times[name]) for name in runs)
            print(
                f"{channels:>5} {size:>3}x{size:<3}  {ours:9.3f}  {torchs:8.3f}  {dense:9.3f}  "
                f"{torchs / ours:.1f}x, {dense / ours:.1f}x"
            )


if __name__ == "__main__":
    main()
