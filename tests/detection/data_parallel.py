"""What `test_kill_and_parallel.py` runs below torchrun; not a test itself.

    torchrun --nproc_per_node 2 data_parallel.py JOB.json RESULTS

Every process writes what came of the job to RESULTS/<rank>.json.
"""

import json
import sys
from pathlib import Path

from onebit.commons.task import Job
from onebit.detection import runner

fields = json.loads(Path(sys.argv[1]).read_text())
fields |= {key: Path(fields[key]) for key in ("data_root", "work_dir")}
outcome = runner.train(Job(**fields))
results = dict(
    metrics=outcome.metrics,
    untrained=outcome.untrained,
    config=outcome.config,
    loss_curve=outcome.details["loss_curve"],
    checkpoint=str(outcome.checkpoint),
    predictions=str(outcome.predictions),
)

from mmengine.dist import get_rank

(Path(sys.argv[2]) / f"{get_rank()}.json").write_text(json.dumps(results))
