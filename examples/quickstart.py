"""Two networks on a drawn dataset, from data to a packed file: a minute or two of two CPU cores.

Run it as a script, or cell by cell in an editor that knows `# %%`.
"""

# %% Draw a small dataset in the format of CIFAR-10.
import subprocess
import sys

import torch

import onebit

subprocess.run([sys.executable, "-m", "onebit", "data", "mini", "data", "--only", "mini-cifar10"], check=True)

# %% Train and score the rows that are missing; run it again and nothing is trained.
rows = onebit.bench("mini-cifar10", backbones=["resnet18_w8", "resnet18_w8_reactnet"], data="data", epochs=1)
print(rows[["backbone", "top1", "untrained_top1", "memory_bits_strict", "ops_strict"]].to_string(index=False))

# %% What every record on the board says, as one table.
results = onebit.load_results("mini-cifar10", "leaderboards/records")
print(results.groupby("backbone")["top1"].agg(["mean", "count"]))

# %% One network by two counting rules.
for rule in ("strict", "dcp-nas"):
    cost = onebit.cost("dcp_nas_s", convention=rule, classes=1000)
    print(f"dcp_nas_s, {rule}: {cost.memory_bits / 1e6:.1f} Mbit, {cost.ops / 1e6:.0f} M operations")

# %% The same network on packed bits.
network = onebit.create_backbone("resnet18_w8_reactnet").eval()
packed = onebit.deploy(network)
image = torch.rand(1, 3, 64, 64)
with torch.no_grad():
    apart = (network(image)[-1] - packed(image)[-1]).abs().max().item()
print(f"largest difference of the packed network's last map: {apart:.1e}")
