"""How a row is scored, as its config says it."""

from __future__ import annotations

from dataclasses import dataclass

from mmengine.config import Config

from onebit.commons import guards
from onebit.commons.datasets import get_dataset
from onebit.commons.errors import InputError
from onebit.reid.evaluation import PROTOCOLS
from onebit.reid.evaluation.distances import check_distance
from onebit.reid.evaluation.reranking import ReRanking

#: What re-ranked metrics are called: never as the plain ones.
RERANKED = "_reranked"


@dataclass(frozen=True)
class Evaluation:
    """How features are scored; see :mod:`onebit.reid.evaluation`.

    Attributes:
        distance: ``euclidean`` or ``cosine``.
        protocol: one of :data:`onebit.reid.evaluation.PROTOCOLS`.
        reranking: score re-ranked distances too, under names of their own; or None.
    """

    distance: str
    protocol: str
    reranking: ReRanking | None = None

    @classmethod
    def of(cls, cfg: Config) -> Evaluation:
        """From ``cfg.evaluation`` and, for the protocol ``auto``, dataset and split.

        Raises:
            InputError: an unknown name or a parameter out of range; re-ranking or a protocol for
                pairs of faces.
        """
        options = cfg.evaluation
        check_distance(options.distance)
        protocol = options.protocol
        if get_dataset(cfg.dataset, task="reid").protocol == "pairs" and (options.rerank or protocol != "auto"):
            raise InputError(
                f"{cfg.dataset} is scored on pairs: of `evaluation` it takes the distance, neither rerank "
                f"nor a protocol"
            )
        if protocol == "auto":
            protocol = _protocol_of_dataset(cfg)
        guards.choice("protocol", protocol, ("auto", *PROTOCOLS))
        guards.switch("evaluation.rerank", options.rerank)
        reranking = ReRanking(options.k1, options.k2, options.lambda_value)
        return cls(options.distance, protocol, reranking if options.rerank else None)

    def text(self) -> str:
        """For a record."""
        text = f"{PROTOCOLS[self.protocol].text}; CMC, mAP, mINP; {self.distance} distance"
        if self.reranking:
            r = self.reranking
            text += f"; *{RERANKED}: k-reciprocal re-ranking, k1={r.k1}, k2={r.k2}, lambda={r.lambda_value}"
        return text


def _protocol_of_dataset(cfg: Config) -> str:
    protocol = get_dataset(cfg.dataset, task="reid").protocol
    if protocol != "cuhk03":
        return protocol if protocol in PROTOCOLS else "market"
    return "cuhk03-classic" if cfg.data.cuhk03_classic_split else "cuhk03-new"
