"""Where several rows run at a time: in processes of this machine, or as jobs on Slurm.

Both take a function and its calls and yield ``(index of the call, result)`` as calls end. An
exception of a call ends the rest: what runs is stopped, what waits is dropped.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from onebit.commons import guards, progress
from onebit.commons.errors import InputError, OnebitError, WorkError

Results = Iterator[tuple[int, Any]]

#: What `--slurm` takes: our name to submitit's, and what reads the value.
SLURM_OPTIONS: dict[str, tuple[str, Callable]] = {
    "partition": ("slurm_partition", lambda _, value: value),
    "time": ("timeout_min", guards.whole),
    "gpus": ("gpus_per_node", partial(guards.whole, least=0)),
    "cpus": ("cpus_per_task", guards.whole),
    "mem": ("mem_gb", partial(guards.number, above=0)),
    "cluster": ("cluster", partial(guards.choice, choices=("slurm", "local", "debug"))),
}
_POLL_SECONDS = 0.5
_DAY_MINUTES = 24 * 60


def in_processes(function: Callable, calls: Sequence[tuple], workers: int) -> Results:
    """``workers`` calls at a time, in processes of their own with their share of the processors.

    Raises:
        WorkError: a process was killed from outside, by the system's out-of-memory killer for one.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(
        min(workers, len(calls)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(threads,),
    )
    try:
        futures = {pool.submit(function, *arguments): i for i, arguments in enumerate(calls)}
        for done in as_completed(futures):
            yield futures[done], done.result()
    except BaseException as error:
        for worker in multiprocessing.active_children():
            worker.terminate()  # its row is resumed from its last checkpoint
        if isinstance(error, BrokenProcessPool):
            raise WorkError(
                "a worker process was killed (out of memory?); the same command goes on from here"
            ) from error
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(threads: int) -> None:
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    progress.silence()  # bars of several processes would overwrite each other
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A worker whose sweep was killed would go on unseen, and then wait for work for ever."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def slurm_parameters(options: Mapping[str, str]) -> dict[str, Any]:
    """Check what `--slurm` was given and translate it for submitit.

    Args:
        options: ``partition``; ``time`` in minutes (default: a day), ``gpus``, ``cpus`` and ``mem`` (GB), each per
            row; ``cluster``: submitit's ``slurm`` (default), or ``local`` and ``debug``, which
            run without Slurm.

    Raises:
        InputError: an option there is not, or a value that is no number where one is needed.
    """
    parameters = {}
    for key, value in options.items():
        name, read = SLURM_OPTIONS[guards.known("option of --slurm", key, SLURM_OPTIONS)]
        numeric = key not in ("partition", "cluster")
        parameters[name] = read(f"--slurm {key}", guards.plain_number(value) if numeric else value)
    # submitit's own limit is five minutes.
    return {"cluster": "slurm", "timeout_min": _DAY_MINUTES, **parameters}


def on_slurm(
    function: Callable, calls: Sequence[tuple], workers: int, options: Mapping[str, str], folder: Path
) -> Results:
    """Every call as a job that submitit hands to Slurm.

    Args:
        workers: jobs at the same time; 1 for as many as Slurm runs.
        options: see :func:`slurm_parameters`.
        folder: on a disk that the nodes share; logs go there.

    Raises:
        InputError: submitit is missing, Slurm is, or it refuses the options.
        WorkError: a job ended without a result; the message names its log.
    """
    parameters = slurm_parameters(options)
    try:
        import submitit
    except ImportError as error:
        raise InputError("--slurm needs submitit: pip install 'onebit-bench[slurm]'") from error
    cluster = parameters.pop("cluster")
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        if cluster == "slurm" and workers > 1:
            parameters["slurm_array_parallelism"] = workers
        executor.update_parameters(name="onebit", **parameters)
    except RuntimeError as error:
        raise InputError(f"--slurm: {str(error).splitlines()[0]}") from error
    running: dict[int, Any] = {}
    waiting = list(enumerate(calls))
    # Slurm holds an array back itself; the local executor starts whatever it is given.
    at_once = len(calls) if cluster == "slurm" else workers
    try:
        while running or waiting:
            if new := waiting[: at_once - len(running)]:
                del waiting[: len(new)]
                with executor.batch():
                    jobs = [executor.submit(_guarded, function, call) for _, call in new]
                running |= {index: job for (index, _), job in zip(new, jobs, strict=True)}
            for index in [i for i, job in running.items() if job.done()]:
                yield index, _result(running.pop(index))
            time.sleep(_POLL_SECONDS if running else 0)
    finally:
        for job in running.values():
            job.cancel(check=False)  # its row is resumed from its last checkpoint


def _guarded(function: Callable, arguments: tuple) -> Any:
    """The result, or the error that the user is meant to read; submitit would give its traceback."""
    warnings.simplefilter("ignore")
    progress.silence()
    try:
        return function(*arguments)
    except OnebitError as error:
        return type(error)(str(error))


def _result(job: Any) -> Any:
    error = job.exception()
    if error is not None:
        text = " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())
        raise WorkError(f"job {job.job_id} ended without a result: {text}; log: {job.paths.stderr}")
    result = job.result()
    if isinstance(result, OnebitError):
        raise result
    return result
