"""What each program reads back of an export, as JSON on standard output: a process of its own, with its package alone.

python readers.py TARGET PLACE [RUN_ID]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Found = dict[str, Any]


def tensorboard(folder: str) -> Found:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    found = EventAccumulator(folder, size_guidance={"scalars": 0}).Reload()

    def told(tag: str) -> Any:
        return plugin_data_pb2.HParamsPluginData.FromString(found.SummaryMetadata(tag).plugin_data.content)

    start = told("_hparams_/session_start_info").session_start_info
    (text,) = found.Tensors("verdict")
    return {
        "scalars": {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]},
        "text": text.tensor_proto.string_val[0].decode(),
        "numbers": {key: value.number_value for key, value in start.hparams.items()},
        "words": {key: value.string_value for key, value in start.hparams.items()},
        "group": start.group_name,
        "status": told("_hparams_/session_end_info").session_end_info.status,
    }


def wandb(folder: str, run_id: str) -> Found:
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = Path(folder).glob(f"wandb/offline-run-*-{run_id}/run-*.wandb")
    found: Found = {"rows": [], "summary": {}, "config": {}}
    for data in _records(path.read_bytes()):
        record = Record.FromString(data)
        match record.WhichOneof("record_type"):
            case "history":
                found["rows"].append(_items(record.history.item))
            case "summary":
                found["summary"] |= _items(record.summary.update)
            case "run":
                found["config"] |= _items(record.run.config.update)
                found |= {"name": record.run.display_name, "notes": record.run.notes, "tags": list(record.run.tags)}
            case "exit":
                found["exit"] = record.exit.exit_code
    return found


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log, whose blocks hold 32 KiB, behind a header of 7 bytes."""
    place, whole = 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        # The whole of a record, or the last part of one.
        if kind in (1, 4):
            yield whole
            whole = b""


def _items(items: Any) -> Found:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def mlflow(store: str) -> Found:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]

    def history(run: Any, name: str) -> list[tuple[int, float]]:
        return sorted((one.step, one.value) for one in client.get_metric_history(run.info.run_id, name))

    return {
        run.data.tags["gradlab.run_id"]: {
            "scalars": {name: history(run, name) for name in run.data.metrics},
            "params": run.data.params,
            "tags": run.data.tags,
            "status": run.info.status,
            "experiment": experiment.name,
        }
        for run in client.search_runs([experiment.experiment_id])
    }


def trackio(project: str) -> Found:
    from trackio.sqlite_storage import SQLiteStorage

    configs = SQLiteStorage.get_all_run_configs(project)
    return {
        run["name"]: {"rows": SQLiteStorage.get_logs(project, run["name"]), "config": configs[run["id"]]}
        for run in SQLiteStorage.get_run_records(project)
    }


READERS: dict[str, Callable[..., Found]] = {
    "tensorboard": tensorboard,
    "wandb": wandb,
    "mlflow": mlflow,
    "trackio": trackio,
}

if __name__ == "__main__":
    sys.path.pop(0)
    print(json.dumps(READERS[sys.argv[1]](*sys.argv[2:])))
