"""Generators of the mini datasets, one module per task.

Each module has ``WRITERS``, a dict from dataset name to ``write(folder: Path) -> None``, which fills
``folder`` (e.g. ``DIR/mini-voc``) with exactly the real dataset's on-disk layout.
"""
