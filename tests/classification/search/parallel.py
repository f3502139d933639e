"""What `test_parallel.py` runs below torchrun; not a test itself.

    torchrun --nproc_per_node 2 parallel.py JOBS.json RESULTS

Every process writes what came of its jobs to RESULTS/<rank>.json. Nothing is copied from the first
process once a search has begun: what agrees then, agrees because gradients were averaged.
"""

import json
import sys
from pathlib import Path

import torch
from mmengine.dist import get_rank

from onebit.classification.search import loop, runner
from onebit.classification.search.data import SharedShuffle
from onebit.classification.search.job import SearchJob
from onebit.commons.errors import OnebitError

drawn, models = [], []
loop.SearchLoop._synchronize = lambda self: models.append(self.model)
loop.own_state = lambda strategy: []
shuffled = SharedShuffle.__iter__


def noted(self):
    order = list(shuffled(self))
    drawn.append(order)
    return iter(order)


SharedShuffle.__iter__ = noted
results = []
for fields in json.loads(Path(sys.argv[1]).read_text()):
    job = SearchJob(**{**fields, "data_root": Path(fields["data_root"]), "work_dir": Path(fields["work_dir"])})
    drawn.clear()
    try:
        outcome = runner.search(job)
        weights = [p.detach().double() for p in models[-1].parameters()]
        results.append(
            dict(
                cell=outcome.genotype.hash,
                history=outcome.history.tolist(),
                sums=[float(w.abs().sum()) for w in weights],
                first_order=drawn[0],
                images_seen=outcome.images_seen,
                processes=outcome.genotype.provenance["processes"],
            )
        )
    except OnebitError as error:
        results.append(dict(error=str(error)))

assert torch.distributed.get_backend() == "gloo"
(Path(sys.argv[2]) / f"{get_rank()}.json").write_text(json.dumps(results))
