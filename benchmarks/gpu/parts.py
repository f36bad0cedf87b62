"""The parts: what each looks at on a card, or rehearses without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.asking import (
    COMMAND,
    best,
    grid,
    is_gpu,
    limits,
    memory_watched,
    quietly,
    runs_in,
    say,
    seeds,
    sweep,
    traffic,
)
from benchmarks.settings import WIDTH
from benchmarks.timing import ROOT, timed
from gradlab.engine.tf32 import products

SHARE = 12
"""The loop runs one in so many of the grid's networks."""


def machine(device: str, _: Path) -> None:
    """What it is, and its two limits."""
    name = torch.cuda.get_device_name(device) if is_gpu(device) else "processor"
    arithmetic, bandwidth = limits(device, 8192 if is_gpu(device) else 256)
    say("machine", card=name, torch=torch.__version__, tflops=arithmetic / 1e12, gigabytes_s=bandwidth / 1e9)
    say("tf32", **tf32(device, 8192 if is_gpu(device) else 256))


def tf32(device: str, side: int) -> dict[str, Any]:
    """Operations a second of a product in TF32, and what becomes of a half and of three quarters of its last bit.

    A processor makes a whole one of both; a card that made none of the second would cut bits off.
    """
    a, b = torch.randn(2, side, side, device=device)
    out, one = torch.empty_like(a), torch.eye(64, device=device)
    with products(torch.device(device)):
        arithmetic = 2.0 * side**3 / best(lambda: torch.mm(a, b, out=out), device)
        half, more = (float(torch.mm(one * (1 + part * 2.0**-10), one)[0, 0] - 1) * 2**10 for part in (0.5, 0.75))
    return {"tflops": arithmetic / 1e12, "half": half, "three_quarters": more}


def suite(device: str, folder: Path) -> None:
    """The tests marked ``gpu``, and the kernels in Triton as they are compiled."""
    files = ["tests/engine/test_on_a_card.py", "tests/nn/test_fused.py", "tests/nn/test_blocks.py"]
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
    say("loop", share=SHARE, seconds=log.seconds, **last(log.output))


def compiled(device: str, _: Path) -> None:
    """The loop compiled, with CUDA graphs, beside the eager one with foreach and with the fused optimizer."""
    rehearsal = () if is_gpu(device) else ("--backend", "aot_eager", "--steps", "8", "--threads", "1")
    told("compiled", "benchmarks.compiled", "--device", device, *rehearsal)


def last(output: str) -> dict[str, Any]:
    """The line of JSON of what a benchmark printed, whatever compilers say around it."""
    found: dict[str, Any] = json.loads(next(line for line in reversed(output.splitlines()) if line[:1] == "{"))
    return found


def ensembles(device: str, folder: Path) -> None:
    """The peer that stacks with `torch.func`, one architecture in three, scaled."""
    if not is_gpu(device):
        say("ensembles", left="a minute on a processor")
        return
    log = timed([sys.executable, "-m", "benchmarks.ensemble", "--share", "3", "--device", device], folder)
    say("ensembles", share=3, seconds=log.seconds, **last(log.output))


def streams(device: str, folder: Path) -> None:
    """The grid by so many pieces at once in one process, and whether its numbers are those of one at a time."""
    from gradlab import load

    losses = []
    for count in (1, 2, 4, 16):
        out = folder / f"streams{count}"
        seconds = sweep(device, out, *grid(device, f"launch.streams={count}"))
        losses.append(load(out).steps["loss"])
        say("streams", runs=runs_in(out), streams=count, seconds=seconds, same=losses[-1].equals(losses[0]))


def workers(device: str, folder: Path) -> None:
    """The grid and ten times as many runs, by so many processes on the one card."""
    many = seeds(10 if is_gpu(device) else 2)
    for name, more, counts in (("grid", (), (2, 4)), ("seeds", (many,), (1, 2, 4))):
        for count in counts:
            seconds = sweep(device, folder / f"{name}{count}", *grid(device, *more, f"launch.workers={count}"))
            say("workers", runs=runs_in(folder / f"{name}{count}"), workers=count, seconds=seconds)


def widths(device: str, folder: Path) -> None:
    """The grid at other widths."""
    for width in (16, 256):
        seconds = sweep(device, folder / f"w{width}", *grid(device, width=width))
        say("width", runs=runs_in(folder / f"w{width}"), width=width, seconds=seconds)


def blocks(device: str, folder: Path) -> None:
    """The grid with steps played by blocks, beside captured ones: seconds, and how far apart losses begin and end."""
    from gradlab import load

    seconds, losses = {}, []
    for kernels in ("torch", "blocks"):
        if is_gpu(device):
            os.environ["GRADLAB_KERNELS"] = kernels
        seconds[kernels] = sweep(device, folder / kernels, *grid(device))
        losses.append(load(folder / kernels).steps.groupby("run_id")["loss"])
    first, last = ((a / b - 1).abs() for a, b in ([of.first() for of in losses], [of.last() for of in losses]))
    say("blocks", seconds=seconds, at_first=float(first.max()), at_last=float(last.median()))


def step(device: str, _: Path) -> None:
    """Milliseconds a step of one cohort, rehearsed and kernel by kernel; by torch, in TF32, by Triton's, by blocks."""
    from benchmarks.choices import step_seconds

    sizes = ((432, 10, 64), (432, 10, 16), (64, 10, 256), (1, 10, 64)) if is_gpu(device) else ((4, 3, 8),)
    for members, depth, width in sizes:
        ways = (("torch", "float32"), ("torch", "tf32"), ("triton", "float32"), ("blocks", "float32"))
        for kernels, precision in ways:
            if is_gpu(device):
                os.environ["GRADLAB_KERNELS"] = kernels
            figures = step_seconds(device, members, depth, width, precision)
            names = {"kernels": kernels, "precision": precision}
            say("step", members=members, depth=depth, width=width, **names, **figures)


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
    """Two commands on one card at the same time."""
    from gradlab import load

    outs = [folder / name for name in ("here", "there")]
    began = time.perf_counter()
    both = [subprocess.Popen([*COMMAND, "sweep", *grid(device), *quietly(device, out)], cwd=ROOT) for out in outs]
    statuses = [one.wait() for one in both]
    say("two commands", statuses=statuses, seconds=time.perf_counter() - began)
    losses = [load(out).runs["loss_last"] for out in outs]
    say("two commands", same=losses[0].equals(losses[1]))


def architectures(device: str, _: Path) -> None:
    """`benchmarks.architectures`, on the card."""
    from benchmarks.architectures import COHORTS, measure

    for name in COHORTS if is_gpu(device) else ("rnn",):
        say("architecture", row=measure(name, COHORTS[name], 1, 1, time.perf_counter, device))


def own(device: str, _: Path) -> None:
    """Networks of one's own beside the plain loop."""
    told("own", "benchmarks.own", "--device", device, *(() if is_gpu(device) else ("--members", "2", "--steps", "12")))


def watch(device: str, _: Path) -> None:
    """`benchmarks.watch`, on the card; what it says of memory would take a minute more."""
    names = (
        "gradlab.watch every=10",
        "gradlab.watch every=50",
        "Lightning-style grad_norm",
        "by hand, layers each 50th",
    )
    little = ("--steps", "12", "--tasks", "transformer", "--only", names[0])
    asked = ("--steps", "250", "--only", *names) if is_gpu(device) else little
    told("watch", "benchmarks.watch", "--device", device, "--no-memory", *asked)


def measure(device: str, _: Path) -> None:
    """`benchmarks.measure`, on the card, of networks that are in no package."""
    names = ("mlp.4.relu", "lenet", "resnet.preact", "lstm", "gru.cells", "gpt", "encoder.post", "mixer", "unet", "vae")
    told("measure", "benchmarks.measure", "--device", device, "--only", *(names if is_gpu(device) else names[:2]))


def told(what: str, *asked: str) -> None:
    """Each line that a module of this folder prints, as it comes: what ends it has what there was by then."""
    command = [sys.executable, "-m", *asked]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        for line in started.stdout:
            say(what, **(json.loads(line) if line.startswith("{") else {"row": line.rstrip()}))
    if started.returncode:
        raise SystemExit(f"{asked[0]} ended with status {started.returncode}")


PARTS: dict[str, tuple[float, Callable[[str, Path], None]]] = {
    "machine": (25, machine),
    "tests": (75, suite),
    "launches": (25, launches),
    "reference": (70, reference),
    "loop": (60, loop),
    "compiled": (110, compiled),
    "choices": (120, choices),
    "ensembles": (40, ensembles),
    "step": (60, step),
    "blocks": (60, blocks),
    "streams": (50, streams),
    "workers": (100, workers),
    "widths": (40, widths),
    "own": (40, own),
    "architectures": (60, architectures),
    "two": (30, two),
    "memory": (40, memory),
    "interrupt": (40, interrupt),
    "watch": (40, watch),
    "measure": (25, measure),
}
"""The most seconds that each may take, and what it does; first what all else rests on, and what is asked most.

Most end in half of them; where a call has not enough for all, those at the end are left for another.
"""
