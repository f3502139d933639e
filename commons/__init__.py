"""Floor 0: what every room stands on and none of them owns.

errors      the two exceptions that become exit codes
datasets    which datasets exist, where they are expected, how to get them
pictures    figures of matplotlib as files
guards      checks of one value: whole numbers, numbers, choices, names, files
files       atomic writes and checksums
task        what goes into a task's runner (`Job`) and what comes back (`Outcome`)
engine      mmengine's Runner made quiet, resumable and reproducible
compat      the shims that make torchvision, mmcv-lite and torchreid importable on a CPU install
mini        generators of the mini datasets
"""
