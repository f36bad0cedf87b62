"""MLflow's runs: an SQLite store of its own, or the store that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import logging
import re
import shlex
from itertools import islice
from pathlib import Path
from typing import Any

from gradlab.export.contents import Contents, Place, Run
from gradlab.spec.named import SpecError

MOST_METRICS, MOST_PARAMS = 1000, 100
"""In one batch: MLflow's own limits."""


def write(contents: Contents, place: str) -> list[Place]:
    """All runs as runs of one experiment; each step has the time at which the result began."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    # It tells of each table that it makes in a new store.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    folder = Path(place).absolute() if "://" not in place and Path(place).is_dir() else None
    store = place if folder is None else f"sqlite:///{folder / 'mlflow.db'}"
    artifacts = None if folder is None else (folder / "artifacts").as_uri()
    try:
        client = MlflowClient(store)
        found = client.get_experiment_by_name(contents.name)
        experiment = found.experiment_id if found else client.create_experiment(contents.name, artifacts)
        for run in contents.runs():
            _write(client, experiment, run, int(contents.began.timestamp() * 1000))
    except MlflowException as error:
        raise SpecError(f"--to mlflow: {error.message}") from error
    return [("store", store), ("look", f"mlflow ui --backend-store-uri {shlex.quote(store)}")]


def _write(client: Any, experiment: str, run: Run, began: int) -> None:
    from mlflow.entities import Metric, Param

    told = {
        "gradlab.run_id": run.run_id,
        "state": run.state,
        "verdict": run.verdict,
        "mlflow.note.content": "\n\n".join(run.sentences),
    }
    there = client.create_run(experiment, start_time=began, tags=told, run_name=run.label).info.run_id
    metrics = iter(
        Metric(_known(name), value, began, step)
        for step, values in (*run.rows, (run.last, run.outcomes))
        for name, value in values.items()
    )
    params = iter(Param(_known(key), str(value)) for key, value in run.settings.items())
    while some := list(islice(params, MOST_PARAMS)):
        client.log_batch(there, params=some)
    while batch := list(islice(metrics, MOST_METRICS)):
        client.log_batch(there, metrics=batch)
    ended = began + int(1000 * run.seconds)
    client.set_terminated(there, "FAILED" if run.state == "failed" else "FINISHED", ended)


def _known(name: str) -> str:
    """A name of the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /]", "_", name)
