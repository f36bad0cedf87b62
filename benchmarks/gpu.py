"""All that is to be seen of gradlab on a GPU, in twelve minutes: is it right, is a step one launch, how fast is it.

Run as ``python -m benchmarks.gpu --out DIR``; ``--device cpu`` rehearses it in two on any machine, with little
networks. Each part runs in a process of its own, is ended when its seconds are over, and writes what it has seen at
once: a line of JSON a figure to ``results.jsonl``, and the same for a reader to ``report.txt``. ``--parts`` chooses.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.settings import BATCH, WIDTH, overrides
from benchmarks.timing import ROOT, timed
from gradlab.launch.worker import take

COMMAND = (sys.executable, "-m", "gradlab")

SIGNAL_PASSES, PARAMETER_PASSES = 10, 6
"""How often a step reads or writes each layer's signal and each parameter at the least.

A signal: H read and Z written by the product, Z read and H written by the activation; back dH read and dZ written, dZ
and H read for the matrix's gradient, dZ read and dH written for the layer below. A parameter: read forth and back, its
gradient written, read for its norm and for the update, and itself written.
"""

SHARE = 12
"""The loop runs one in so many of the grid's networks."""


def say(what: str, **figures: Any) -> None:
    """One line of the results."""
    print(json.dumps({"what": what, **figures}), flush=True)


def is_gpu(device: str) -> bool:
    """Whether this is no rehearsal."""
    return device != "cpu"


def grid(device: str, *more: str, width: int = WIDTH) -> tuple[str, ...]:
    """The reference grid, or a little one to rehearse with."""
    if is_gpu(device):
        return (*overrides(width=width), *more)
    return ("model.depth=3,5", "model.activation=relu,tanh", f"model.width={min(width, 16)}", "train.steps=12", *more)


def seeds(count: int) -> str:
    """So many of them."""
    return f"seed=range({count})"


def sweep(device: str, out: Path, *asked: str) -> float:
    """The seconds of a whole ``gradlab sweep`` into ``out``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return timed([*COMMAND, "sweep", *asked, *quietly(device, out)], out.parent).seconds


def quietly(device: str, out: Path) -> tuple[str, ...]:
    """Options of a sweep."""
    return ("--device", device, "--no-report", "-q", "-o", str(out))


@contextmanager
def memory_watched(device: str) -> Iterator[list[float]]:
    """The MiB in use on the card, twice a second."""
    seen: list[float] = []
    over = threading.Event()
    ask = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]

    def look() -> None:
        while not over.wait(0.5):
            seen.append(float(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()[0]))

    thread = threading.Thread(target=look, daemon=True)
    if is_gpu(device):
        thread.start()
    try:
        yield seen
    finally:
        over.set()


def best(run: Callable[[], object], device: str, turns: int = 20) -> float:
    """The seconds of the fastest of some turns."""
    seconds = []
    for _ in range(turns):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def wait(device: str) -> None:
    """Until the card has done what it was asked for."""
    if is_gpu(device):
        torch.cuda.synchronize(device)


def limits(device: str, side: int) -> tuple[float, float]:
    """Operations a second of a float32 product of ``side`` (no TF32), and bytes a second of a copy, there and back."""
    torch.backends.cuda.matmul.allow_tf32 = False
    a, b = torch.randn(2, side, side, device=device)
    out = torch.empty_like(a)
    arithmetic = 2.0 * side**3 / best(lambda: torch.mm(a, b, out=out), device)
    source = torch.empty(16, side, side, device=device)
    target = torch.empty_like(source)
    return arithmetic, 2.0 * source.nbytes / best(lambda: target.copy_(source), device)


def traffic(depth: int, width: int) -> float:
    """Bytes that a step of one network moves at the least.

    >>> traffic(1, 64) == 4 * (PARAMETER_PASSES * 650 + SIGNAL_PASSES * BATCH * 10)
    True
    """
    widths = [64, *[width] * (depth - 1), 10]
    parameters = sum((before + 1) * after for before, after in pairwise(widths))
    return 4.0 * (PARAMETER_PASSES * parameters + SIGNAL_PASSES * BATCH * sum(widths[1:]))


def machine(device: str, _: Path) -> None:
    """What it is, and its two limits."""
    name = torch.cuda.get_device_name(device) if is_gpu(device) else "processor"
    arithmetic, bandwidth = limits(device, 8192 if is_gpu(device) else 256)
    say("machine", card=name, torch=torch.__version__, tflops=arithmetic / 1e12, gigabytes_s=bandwidth / 1e9)


def suite(device: str, folder: Path) -> None:
    """The tests marked ``gpu``, and the kernels in Triton as they are compiled."""
    files = ["tests/engine/test_on_a_card.py", "tests/nn/test_fused.py"]
    chosen = "cuda or fused" if is_gpu(device) else "fake and graph"
    # Without the settings of the project, which ask for the newest pytest.
    plain = ("-c", os.devnull, f"--rootdir={ROOT}", "--import-mode=importlib", "-p", "no:cacheprovider")
    log = folder / "tests.txt"
    with log.open("w", encoding="utf-8") as stream:
        asked = [sys.executable, "-m", "pytest", "-q", "-ra", *plain, *files, "-k", chosen]
        ended = subprocess.run(asked, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, check=False)
    lines = log.read_text(encoding="utf-8").splitlines()
    say("tests", status=ended.returncode, failed=[one for one in lines if one.startswith(("FAILED", "ERROR"))])
    say("tests", said=lines[-25:])


def choices(device: str, _: Path) -> None:
    """Every named choice, ten steps on the card and on the processor: the largest relative difference of a loss."""
    from benchmarks.choices import compared, named

    many = list(named())
    for key, name in many if is_gpu(device) else many[::16]:
        for precision in ("float64", "float32"):
            try:
                say("choice", key=key, name=name, precision=precision, **compared(key, name, precision, device))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the others are looked at
                say("choice", key=key, name=name, precision=precision, failed=f"{type(error).__name__}: {error}"[:300])


def launches(device: str, _: Path) -> None:
    """What the host does in the steps between two flushes, by the profiler; a step that waited would raise."""
    from benchmarks.choices import profiled

    for record in (False, True):
        say("launches of 20 steps", record=record, **profiled(device, record=record))


def reference(device: str, folder: Path) -> None:
    """The grid of 432 runs, twice: seconds, memory, shares of the limits, and whether both are the same bit for bit."""
    from benchmarks.limit import training
    from gradlab import load
    from gradlab.grid.cohorts import cost
    from gradlab.spec.run import build

    with memory_watched(device) as seen:
        seconds = [sweep(device, folder / name, *grid(device)) for name in ("one", "two")]
    found = [load(folder / name) for name in ("one", "two")]
    clock = ["duration_s"]
    same = all(
        getattr(found[0], table).drop(columns=clock, errors="ignore").equals(
            getattr(found[1], table).drop(columns=clock, errors="ignore")
        )
        for table in ("runs", "steps", "layers")
    )  # fmt: skip
    say("grid", runs=len(found[0].runs), seconds=seconds, peak_mib=max(seen, default=None), same=same)
    if is_gpu(device):
        arithmetic, bandwidth = limits(device, 8192)
        reached = training(folder / "one", WIDTH, arithmetic)
        plain = [build({"model.depth": depth, "model.width": WIDTH}) for depth in (5, 10, 20)]
        # Every depth has as many runs as the others.
        moved = sum(traffic(run.model.depth, WIDTH) for run in plain) / sum(cost(run).work / 201 for run in plain)
        by_memory = reached.limit * arithmetic * moved / bandwidth
        say("grid", training_s=reached.seconds, of_arithmetic=reached.share, of_bandwidth=by_memory / reached.seconds)


def loop(device: str, folder: Path) -> None:
    """The plain loop of eager torch on the same card, one run in twelve, scaled to the grid."""
    if not is_gpu(device):
        say("loop", left="a minute on a processor")
        return
    log = timed([sys.executable, "-m", "benchmarks.loop", "--share", str(SHARE), "--device", device], folder)
    say("loop", seconds=log.seconds, **json.loads(log.output.splitlines()[-1]))


def ensembles(device: str, folder: Path) -> None:
    """The peer that stacks with `torch.func`, one architecture in three, scaled."""
    if not is_gpu(device):
        say("ensembles", left="a minute on a processor")
        return
    log = timed([sys.executable, "-m", "benchmarks.ensemble", "--share", "3", "--device", device], folder)
    say("ensembles", seconds=log.seconds, **json.loads(log.output.splitlines()[-1]))


def widths(device: str, folder: Path) -> None:
    """The grid at other widths, and ten times as many runs."""
    for width in (16, 256):
        say("grid", width=width, seconds=sweep(device, folder / f"w{width}", *grid(device, width=width)))
    many = seeds(10 if is_gpu(device) else 2)
    say("grid", more=many, seconds=sweep(device, folder / "seeds", *grid(device, many)))


def step(device: str, _: Path) -> None:
    """Milliseconds a step of one cohort: as a graph, one kernel after the other, by torch and by Triton's kernels."""
    from benchmarks.choices import step_seconds

    sizes = ((432, 10, 64), (432, 10, 16), (64, 10, 256), (1, 10, 64)) if is_gpu(device) else ((4, 3, 8),)
    for members, depth, width in sizes:
        for kernels in ("torch", "triton") if is_gpu(device) else ("torch",):
            os.environ["GRADLAB_KERNELS"] = kernels
            figures = step_seconds(device, members, depth, width)
            say("step", members=members, depth=depth, width=width, kernels=kernels, **figures)


def memory(device: str, folder: Path) -> None:
    """A piece that does not fit what others have left of the card ends in halves, and in all its runs."""
    from gradlab import load

    hog = None
    if is_gpu(device):
        free, _ = torch.cuda.mem_get_info(device)
        hog = torch.empty(free - 5 * 2**30, dtype=torch.uint8, device=device)
    runs = 512 if is_gpu(device) else 4
    asked = (seeds(runs), "model.width=256", "model.depth=3", "data.batch_size=full", "train.steps=12")
    seconds = sweep(device, folder / "large", *asked, "launch.memory=1024GiB")
    manifest = json.loads((folder / "large" / "manifest.json").read_text(encoding="utf-8"))
    states = load(folder / "large").runs["state"].value_counts().to_dict()
    chunks = [piece.get("chunks") for piece in manifest["pieces"]]
    say("out of memory", seconds=seconds, chunks=chunks, states=states, hog=0 if hog is None else hog.nbytes)


def interrupt(device: str, folder: Path) -> None:
    """Ctrl-C in the middle, and what `--resume` makes of it."""
    from gradlab import load

    out = folder / "interrupted"
    many = seeds(4 if is_gpu(device) else 400)
    started = subprocess.Popen([*COMMAND, "sweep", *grid(device, many), *quietly(device, out)], cwd=ROOT)
    end = time.monotonic() + 40
    while not any(out.glob("pieces/*")) and started.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(0.5)
    began = time.perf_counter()
    started.send_signal(signal.SIGINT)
    status = started.wait(30)
    say("Ctrl-C", status=status, seconds=time.perf_counter() - began)
    if status == 130:
        timed([*COMMAND, "sweep", "--resume", str(out), "--device", device, "--no-report", "-q"], folder)
    say("Ctrl-C", states=load(out).runs["state"].value_counts().to_dict())


def two(device: str, folder: Path) -> None:
    """Two commands on one card at the same time, and one of two workers."""
    from gradlab import load

    outs = [folder / name for name in ("here", "there")]
    began = time.perf_counter()
    both = [subprocess.Popen([*COMMAND, "sweep", *grid(device), *quietly(device, out)], cwd=ROOT) for out in outs]
    statuses = [one.wait() for one in both]
    say("two commands", statuses=statuses, seconds=time.perf_counter() - began)
    seconds = sweep(device, folder / "workers", *grid(device, "launch.workers=2"))
    losses = [load(out).runs["loss_last"] for out in (*outs, folder / "workers")]
    say("two workers", seconds=seconds, same=all(losses[0].equals(other) for other in losses[1:]))


def architectures(device: str, _: Path) -> None:
    """`benchmarks.architectures`, on the card."""
    from benchmarks.architectures import COHORTS, measure

    for name in COHORTS if is_gpu(device) else ("rnn",):
        say("architecture", row=measure(name, COHORTS[name], 1, 1, time.perf_counter, device))


PARTS: dict[str, tuple[float, Callable[[str, Path], None]]] = {
    "machine": (25, machine),
    "tests": (75, suite),
    "launches": (25, launches),
    "reference": (70, reference),
    "loop": (60, loop),
    "ensembles": (40, ensembles),
    "step": (50, step),
    "memory": (40, memory),
    "interrupt": (45, interrupt),
    "two": (45, two),
    "widths": (70, widths),
    "architectures": (60, architectures),
    "choices": (120, choices),
}
"""The seconds that each may take, and what it does; first what all else rests on."""


def run(name: str, device: str, out: Path) -> None:
    """One part in a process of its own; each line that it prints is kept as it comes."""
    seconds, _ = PARTS[name]
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
    """Runs the parts one after the other, or one of them here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="default cuda:0; cpu rehearses")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=" ".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="default ./gpu-results")
    parser.add_argument("--one", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        take(torch.device(arguments.device))
        with tempfile.TemporaryDirectory(prefix="gradlab-benchmark-") as folder:
            PARTS[arguments.one][1](arguments.device, Path(folder))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.parts:
        run(name, arguments.device, arguments.out)


if __name__ == "__main__":
    main()
