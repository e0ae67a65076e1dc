"""Runs rows: one run after another on a stage, two stages at once."""

from __future__ import annotations

import fnmatch
import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from .judge import Result, judge
from .rows import all_rows
from .scene import DEFAULTS, SCALED, Scene
from .stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .rows import Row

POLICIES = ("Skip", "Resend")
SEED = 20_261_124


@dataclass(frozen=True, slots=True)
class Job:
    """One run that is to be made."""

    row: str
    policy: str
    seed: int
    defaults: bool


def jobs(rows: list[Row], *, runs: int | None = None, defaults: bool = True, seed: int = SEED) -> list[Job]:
    """The runs of some rows; policies alternate, seeds follow from row and number.

    Args:
        rows: which.
        runs: of each (None: what the row says).
        defaults: with the runs at default settings.
        seed: the first one.
    """
    made = []
    for row in rows:
        base = seed + zlib.crc32(row.name.encode()) % 100_000
        made += [Job(row.name, POLICIES[(n + base) % 2], base + n, defaults=False) for n in range(runs or row.runs)]
        if row.defaults and defaults:
            made.append(Job(row.name, POLICIES[base % 2], base + 1_000, defaults=True))
    return sorted(made, key=lambda job: not job.defaults)  # the long ones first


def run(stage: Stage, job: Job) -> Result:
    """One run; whatever goes wrong is a result, too."""
    row = all_rows()[job.row]
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=stage.folder))
    scene = Scene(
        stage, job.policy, job.seed, DEFAULTS if job.defaults else SCALED, folder,
        parallelism=row.senders, proxied=row.proxied, environ=row.environ, match=row.match,
    )  # fmt: skip
    began = time.monotonic()
    problem, figures = None, {}
    try:
        _play(scene, row, defaults=job.defaults)
        figures = judge(scene, stopped=row.stopped, in_time=row.in_time)
    except Exception as error:  # noqa: BLE001 - a failed run is a result
        problem = f"{type(error).__name__}: {error}"[:600]
    finally:
        scene.stop()
    result = Result(
        row.name, job.policy, job.seed, job.defaults, seconds=round(time.monotonic() - began, 2), problem=problem,
        **figures,
    )  # fmt: skip
    if result.failed:
        _keep(folder, result)
    shutil.rmtree(folder, ignore_errors=True)
    return result


def _play(scene: Scene, row: Row, *, defaults: bool) -> None:
    scene.prepare()
    if row.opening:
        (row.default_opening if defaults and row.default_opening else row.opening)(scene)
    else:
        scene.start()
        scene.moment()
        (row.default_blow if defaults and row.default_blow else row.blow)(scene)
    if not row.stopped:
        scene.finish(seconds=150 if defaults else 60)
    assert scene.broken is None, scene.broken
    assert scene.fleet.totals.skipped or not row.skips, "nobody was skipped: the rows were changed too late"


def _keep(folder: Path, result: Result) -> None:
    """The logs of a failed run, where a person looks for them."""
    target = Path("build") / "faults" / f"{result.row}-{result.policy}-{result.seed}"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)


# --- two at once --------------------------------------------------------------------------------------------
_stage: Stage | None = None
_failures = 0


def _worker(folder: str) -> None:
    """Begin a worker: a stage of its own, which lives as long as the process."""
    global _stage  # noqa: PLW0603 - what a worker process has instead of an object
    # `timeout` and a terminal end a whole process group: a worker puts its house away when the coordinator says so.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    _stage = Stage(Path(folder) / f"stage-{os.getpid()}").__enter__()
    multiprocessing.util.Finalize(None, _end_worker, exitpriority=10)


def _end_worker() -> None:
    """Put away the stage that the worker has by now."""
    if _stage is not None:
        _stage.__exit__()


def _work(job: Job) -> Result:
    global _stage, _failures  # noqa: PLW0603
    assert _stage is not None
    result = run(_stage, job)
    _failures += result.problem is not None
    if result.problem is not None:  # the next run gets a house in order
        folder = _stage.folder
        _stage.__exit__()
        _stage = Stage(folder.with_name(f"{folder.name}-{_failures}")).__enter__()
    return result


def run_all(planned: list[Job], *, workers: int = 2) -> Iterator[Result]:
    """Every job, as they come to an end."""
    folder = tempfile.mkdtemp(prefix="mailfleet-faults-")
    Path(folder).chmod(0o755)
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_worker, initargs=(folder,)) as pool:
            futures = [pool.submit(_work, job) for job in planned]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:  # the caller has seen enough, or SIGTERM: what runs now still ends, and its house is put away
                pool.shutdown(wait=True, cancel_futures=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def chosen(names: list[str]) -> list[Row]:
    """Rows by name or by a pattern of the shell; none: all.

    Raises:
        SystemExit: no such row; the message lists them.
    """
    rows = all_rows()
    found: dict[str, Row] = {}
    for name in names or ["*"]:
        matching = fnmatch.filter(rows, name)
        if not matching:
            raise SystemExit(f"no row {name!r}; there are {', '.join(rows)}")
        found |= {n: rows[n] for n in matching}
    return list(found.values())
