"""All that is to be seen of gradlab on a GPU: is it right, is a step one launch, how fast is it beside what.

Run as ``python -m benchmarks.gpu --out DIR --seconds 570``; ``--device cpu`` rehearses it on any machine, with little
networks. Each part runs in a process of its own, is ended when its seconds are over, and writes what it has seen at
once: a line of JSON a figure to ``results.jsonl``, the same for a reader to ``report.txt``, and at the end the tables
of docs/performance.md to ``table.md``. ``--parts`` chooses; ``--seconds`` are those of all together, and what found no
room in them is named at the end, for another call. ``--table DIR ...`` prints the tables of finished calls.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.table import read, tables
from benchmarks.timing import ROOT
from gradlab.launch.worker import take

LEAST = 10.0
"""Seconds in which a part comes to nothing: its imports alone take some."""


def run(name: str, device: str, out: Path, left: float = float("inf")) -> None:
    """One part in a process of its own, of ``left`` seconds at the most; each line of it is kept as it comes."""
    seconds = min(PARTS[name][0], left)
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.gpu", "--one", name, "--device", device]
    with (out / "errors.txt").open("a", encoding="utf-8") as errors:
        errors.write(f"--- {name}\n")
        errors.flush()
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        ) as part:
            cut = threading.Timer(seconds, os.killpg, (part.pid, signal.SIGKILL))
            cut.start()
            assert part.stdout is not None
            for line in part.stdout:
                note(out, name, line)
        cut.cancel()
    took = time.perf_counter() - began
    note(out, name, json.dumps({"what": "end", "status": part.returncode, "seconds": round(took, 1), "of": seconds}))


def note(out: Path, part: str, line: str) -> None:
    """Keeps a line, as JSON and for a reader."""
    try:
        told = {"part": part, **json.loads(line)}
    except ValueError:
        told = {"part": part, "what": "said", "text": line.rstrip()}
    text = "  ".join(f"{key} {value}" for key, value in told.items() if key not in ("part", "what"))
    for name, written in (("results.jsonl", json.dumps(told)), ("report.txt", f"{part}: {told['what']}  {text}")):
        with (out / name).open("a", encoding="utf-8") as stream:
            stream.write(written + "\n")
    print(f"{part}: {told['what']}  {text}", flush=True)


def main() -> None:
    """Runs the parts one after the other, or one of them here, or makes the tables of what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="default cuda:0; cpu rehearses")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=" ".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="default ./gpu-results")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of all parts together (default: no limit)")
    parser.add_argument("--table", type=Path, nargs="+", metavar="DIR", help="print the tables of these results")
    parser.add_argument("--one", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.table:
        print(tables(read(arguments.table)))
        return
    if arguments.one:
        take(torch.device(arguments.device))
        with tempfile.TemporaryDirectory(prefix="gradlab-benchmark-") as folder:
            PARTS[arguments.one][1](arguments.device, Path(folder))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    end, waiting = time.monotonic() + arguments.seconds, []
    for name in arguments.parts:
        if (left := end - time.monotonic()) > LEAST:
            run(name, arguments.device, arguments.out, left)
        else:
            waiting.append(name)
    (arguments.out / "table.md").write_text(tables(read([arguments.out])) + "\n", encoding="utf-8")
    if waiting:
        print(f"no seconds were left for: --parts {' '.join(waiting)}", flush=True)


if __name__ == "__main__":
    main()
