"""What keeps the training of a 1-bit detector from diverging, as named choices.

Each is an option ``stabilizers.<name>`` of `onebit train` and `onebit bench` over any recipe; what
holds in the end, whoever set it, is in the record (``details.stabilizers``).
"""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from onebit.commons import guards
from onebit.commons.errors import InputError

#: The config key under which the choices stand.
OPTION = "stabilizers"
#: Name to what it means.
CHOICES = {
    "warmup": "iterations of linear warm-up",
    "clip_grad": "largest norm of the gradient; None for no limit",
    "norm": "batch norms: SyncBN (in training mode, statistics over the batches of all processes; "
    "the default), BN (each process by itself), frozen (the backbone's in eval mode)",
    "loss_weights": "factors of rpn_cls, rpn_bbox, cls, bbox, centerness",
}
_NORMS = ("SyncBN", "BN", "frozen")
#: Name of a loss weight to its places in the model's config: of two stages and of one.
_LOSSES = {
    "rpn_cls": ("rpn_head.loss_cls",),
    "rpn_bbox": ("rpn_head.loss_bbox",),
    "cls": ("roi_head.bbox_head.loss_cls", "bbox_head.loss_cls"),
    "bbox": ("roi_head.bbox_head.loss_bbox", "bbox_head.loss_bbox"),
    "centerness": ("bbox_head.loss_centerness",),
}


def take(options: dict[str, Any]) -> dict[str, Any]:
    """Remove the choices from dotted ``options`` and return them by name.

    Raises:
        InputError: unknown name.
    """
    chosen: dict[str, Any] = {}
    for key in [k for k in options if k.split(".")[0] == OPTION]:
        value, path = options.pop(key), key.split(".")[1:]
        for part in reversed(path):
            value = {part: value}
        if not isinstance(value, dict):
            raise InputError(f"{key} {value!r}: expected {OPTION}.NAME, NAME one of {', '.join(CHOICES)}")
        for name, of_name in value.items():
            guards.known(f"option of {OPTION}", name, CHOICES)
            if name == "loss_weights" and isinstance(of_name, dict):
                of_name = {**chosen.get(name, {}), **of_name}
            chosen[name] = of_name
    return chosen


def apply(cfg: Config, chosen: dict[str, Any]) -> None:
    """Lay the choices over a config, which keeps them under ``stabilizers``.

    Raises:
        InputError: a value out of range, or a recipe without the place it belongs to.
    """
    if not chosen:
        return
    cfg.stabilizers = chosen
    if "warmup" in chosen:
        warmup = guards.whole(f"{OPTION}.warmup", chosen["warmup"], 0)
        schedulers = [s for s in _schedulers(cfg) if s["type"] != "LinearLR"]
        if warmup:
            schedulers.insert(0, dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=warmup))
        cfg.param_scheduler = schedulers
    if "clip_grad" in chosen:
        limit = chosen["clip_grad"]
        cfg.optim_wrapper.clip_grad = (
            None if limit is None else dict(max_norm=guards.number(f"{OPTION}.clip_grad", limit, 0))
        )
    if "norm" in chosen:
        guards.choice(f"{OPTION}.norm", chosen["norm"], _NORMS)
        cfg.model.backbone.norm_eval = chosen["norm"] == "frozen"
        cfg.sync_bn = chosen["norm"] == "SyncBN"
    weights = chosen.get("loss_weights", {})
    if not isinstance(weights, dict) or set(weights) - set(_LOSSES):
        raise InputError(f"{OPTION}.loss_weights {weights!r}: expected factors of {', '.join(_LOSSES)}")
    for name, weight in weights.items():
        loss = _loss(cfg.model, name)
        if loss is None:
            place = " and no ".join(_LOSSES[name])
            raise InputError(f"{OPTION}.loss_weights.{name}: this detector has no {place}")
        loss["loss_weight"] = guards.number(f"{OPTION}.loss_weights.{name}", weight, 0)


def _schedulers(cfg: Config) -> list[dict]:
    """mmengine takes one alone as well as a list."""
    found = cfg.get("param_scheduler") or []
    return [found] if isinstance(found, dict) else list(found)


def _loss(model: dict, name: str) -> dict | None:
    """The config of a loss; None where the detector has none, or several, at that place."""
    for place in _LOSSES[name]:
        found: Any = model
        for key in place.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            return found
    return None


def read(cfg: Config) -> dict[str, Any]:
    """The stabilizers that a complete config has, by name.

    ``warmup`` is None where a config of somebody's own does not state it in iterations.
    """
    warmup = [None if s.get("by_epoch", True) else s.get("end") for s in _schedulers(cfg) if s["type"] == "LinearLR"]
    clip = cfg.optim_wrapper.get("clip_grad") or {}
    frozen = cfg.model.backbone.get("norm_eval", False)
    losses = {name: _loss(cfg.model, name) for name in _LOSSES}
    weights = {name: loss.get("loss_weight", 1.0) for name, loss in losses.items() if loss}
    return dict(
        warmup=warmup[0] if warmup else 0,
        clip_grad=clip.get("max_norm"),
        norm="frozen" if frozen else "SyncBN" if cfg.get("sync_bn", True) else "BN",
        loss_weights=weights,
    )
