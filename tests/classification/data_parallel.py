"""What `test_data_parallel.py` runs below torchrun, every job in turn; not a test itself.

    torchrun --nproc_per_node 2 data_parallel.py JOBS.json RESULTS

Every process writes what came of its jobs to RESULTS/<rank>.json, and to RESULTS/<rank>.threads the
threads that it still has when it has left the group.
"""

import atexit
import json
import os
import sys
from pathlib import Path


def write_threads() -> None:
    names = sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    (Path(sys.argv[2]) / f"{os.environ['RANK']}.threads").write_text("\n".join(names))


atexit.register(write_threads)  # first, and so called last

from onebit.classification import runner
from onebit.commons.errors import OnebitError
from onebit.commons.task import Job

results = []
for fields in json.loads(Path(sys.argv[1]).read_text()):
    job = Job(**{**fields, "data_root": Path(fields["data_root"]), "work_dir": Path(fields["work_dir"])})
    try:
        outcome = runner.train(job)
        results.append(
            dict(
                metrics=outcome.metrics,
                untrained=outcome.untrained,
                config=outcome.config,
                loss_curve=outcome.details["loss_curve"],
                checkpoint=str(outcome.checkpoint),
                predictions=str(outcome.predictions),
            )
        )
    except OnebitError as error:
        results.append(dict(error=str(error)))

from mmengine.dist import get_rank

(Path(sys.argv[2]) / f"{get_rank()}.json").write_text(json.dumps(results))
