"""Signs of weights as a stream of bits, 64 to a word."""

from __future__ import annotations

import math

import torch
from torch import Tensor

WORD = 64


def words_for(count: int) -> int:
    """Words that ``count`` bits take."""
    return -(-count // WORD)


def pack_bits(positive: Tensor) -> Tensor:
    """Flatten ``positive`` (bool, any shape) into int64 words; the first value is the lowest bit.

    The last word is filled up with zeros. Works on the meta device too.
    """
    flat = positive.reshape(-1).long()
    padded = torch.nn.functional.pad(flat, (0, words_for(flat.numel()) * WORD - flat.numel()))
    places = torch.arange(WORD, device=flat.device)
    return (padded.view(-1, WORD) << places).sum(1)  # the highest bit is the sign of an int64


def unpack_bits(words: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of :func:`pack_bits`: a bool tensor of ``shape``."""
    places = torch.arange(WORD, device=words.device)
    flat = (words.unsqueeze(1) >> places).bitwise_and(1).view(-1)
    return flat[: math.prod(shape)].view(shape).bool()


def unpack_signs(words: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same as +1 and -1, float32."""
    return unpack_bits(words, shape).float().mul_(2).sub_(1)
