"""TensorBoard's event files: a folder a run, its scalars by step, and the table of hyperparameters over all runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gradlab.export.contents import OUTCOMES, Contents, Place, Run


def write(contents: Contents, place: str) -> list[Place]:
    """All runs into folders of ``place``; every event has the time at which the result began."""
    from tensorboard.plugins.hparams.summary_v2 import HParam, Metric, hparams_config_pb

    began = contents.began.timestamp()
    keys = [HParam(name) for name in ("verdict", *contents.varying, "state")]
    config = hparams_config_pb(keys, [Metric(f"summary/{name}") for name in OUTCOMES], time_created_secs=began)
    _write(Path(place), began, [(0, config)])
    for run in contents.runs():
        _write(Path(place) / run.title, began, _events(run, began))
    return [("events", place), ("look", f"tensorboard --logdir {shlex.quote(place)}")]


def _write(folder: Path, began: float, events: Iterable[tuple[int, Any]]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for step, summary in events:
        writer.add_event(Event(wall_time=began, step=step, summary=summary))
    writer.close()


def _events(run: Run, began: float) -> Iterable[tuple[int, Any]]:
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.plugins.text.summary_v2 import text_pb

    told = {**run.settings, "verdict": run.verdict, "state": run.state}
    yield 0, hparams_pb(told, trial_id=run.run_id, start_time_secs=began)
    yield 0, text_pb("verdict", "\n\n".join(run.sentences))
    for step, values in run.rows:
        yield step, _scalars(values)
    yield run.last, _scalars({f"summary/{name}": value for name, value in run.outcomes.items()})
    yield run.last, _ended(run, began)


def _scalars(values: Mapping[str, float]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])


def _ended(run: Run, began: float) -> Any:
    """The end of a session of hyperparameters; the package's own function for it asks for TensorFlow."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_FAILURE if run.state == "failed" else api_pb2.STATUS_SUCCESS
    ended = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=began + run.seconds)
    told = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=ended))
    tag = metadata.SESSION_END_INFO_TAG
    return Summary(value=[Summary.Value(tag=tag, metadata=told, tensor=metadata.NULL_TENSOR)])
