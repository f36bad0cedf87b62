"""Pieces as tasks of a Ray cluster: its nodes need gradlab, and no file system in common.

Ray is an extra, and is imported where `launch=ray` asks for it. A node that sees the folder writes into it; any other
sends the tables through Ray's object store, and the command writes them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import signal
import socket
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradlab
from gradlab.grid.launching import Launch
from gradlab.launch.devices import WORKER_MEMORY, Device
from gradlab.launch.events import Event, Job, bury, halved
from gradlab.launch.interrupts import STOPPING, held
from gradlab.launch.places import planned_for
from gradlab.launch.ray_task import LOOK_SECONDS, Board, card_memory, train_piece
from gradlab.spec.named import SpecError
from gradlab.store import atomic
from gradlab.store.folder import Folder

if TYPE_CHECKING:
    from gradlab.grid.cohorts import Piece

STOP_SECONDS = 10.0
"""How long tasks that are told to stop may take to keep what they have, before they are left."""

REACH_SECONDS = 5.0
"""How long an address may take to answer."""

AHEAD = 16
"""Tasks at least that wait in Ray beside those at work, so that no core waits for this command."""

CONTEXT = 2**30
"""Bytes of a GPU that a process takes beside its piece."""


@dataclass(frozen=True)
class Cluster:
    """What a Ray cluster has: of each node the resources, by Ray's names; the bytes of a GPU's ``card``, if asked."""

    address: str
    nodes: tuple[Mapping[str, float], ...]
    card: int | None = None

    def most(self, resource: str) -> float:
        """Of a resource, what one node has."""
        return max((node.get(resource, 0.0) for node in self.nodes), default=0.0)

    def total(self, resource: str) -> float:
        """Of a resource, what all nodes have together."""
        return sum(node.get(resource, 0.0) for node in self.nodes)

    def __str__(self) -> str:
        count, gpus = len(self.nodes), self.total("GPU")
        had = f"{count} node{'s' * (count > 1)}, {self.total('CPU'):g} cores"
        return f"Ray at {self.address}: {had}{f', {gpus:g} GPUs' if gpus else ''}"


@dataclass
class Crew:
    """Tasks of a Ray cluster; ``flying`` are those that it has been given, ``count`` as many as it works on at once."""

    device: Device
    launch: Launch
    cluster: Cluster
    here: bool = False
    count: int = 0
    flying: dict[Any, Job] = field(default_factory=dict)
    board: Any = None

    @property
    def there(self) -> int:
        """As many pieces as it works on."""
        return self.count

    def at_once(self, asked: int | None, pieces: Sequence[Piece]) -> tuple[int, str | None]:
        """As many as were asked for, or as the nodes have cores and GPUs for."""
        cores = max((piece.threads for piece in pieces), default=1)
        gpus = max((self._gpus(piece) for piece in pieces), default=0.0)
        for name, word, wanted in (("CPU", "cores", cores), ("GPU", "GPUs", gpus)):
            if wanted > self.cluster.most(name):
                raise SpecError(
                    f"launch=ray: a piece takes {wanted:g} {word}, and no node has more than "
                    f"{self.cluster.most(name):g} ({self.cluster})"
                )
        slots = int(self.cluster.total("CPU") // cores)
        slots = min(slots, int(self.cluster.total("GPU") // gpus)) if gpus else slots
        return asked or max(1, slots), None

    def fit(self, count: int) -> None:
        """Nothing is started in advance; with 0 what was given is cancelled, and what it had trained is kept."""
        self.count = count
        if count or not self.flying:
            return
        import ray
        from ray.exceptions import RayError

        # Whoever presses Ctrl-C twice has been heard the first time. Not `ray.cancel`: a task that ends as it is
        # cancelled can end the command itself (Ray 2.60: "Tried to complete task that was not pending").
        with held(*STOPPING, signal.SIGALRM), contextlib.suppress(RayError):
            ray.get(self.board.stop.remote())
            ended, _ = ray.wait(list(self.flying), num_returns=len(self.flying), timeout=STOP_SECONDS)
            for task in ended:
                # One that died has nothing to tell.
                with contextlib.suppress(RayError):
                    _written(self.flying[task], ray.get(task)[1])
        self.flying.clear()

    def run(self, jobs: Sequence[Job], *, fail_fast: bool) -> Iterator[Event]:
        """Runs ``jobs``; a piece that is lost with its worker or its node is run again, ``launch.retries`` times."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        yield Event("told", -1, details=f"{self.cluster}.")
        node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board = self.board = ray.remote(num_cpus=0)(Board).options(scheduling_strategy=node).remote()
        waiting, lost, begun = (
            deque(replace(job, folder=job.folder.resolve()) for job in jobs),
            dict[int, int](),
            set[int](),
        )
        looked = 0.0
        with _marked(waiting[0].folder) as mark:
            while waiting or self.flying:
                while waiting and len(self.flying) < self._most():
                    job = waiting.popleft()
                    self.flying[self._task(job, board, mark)] = job
                ended, _ = ray.wait(list(self.flying), timeout=LOOK_SECONDS)
                if time.monotonic() - looked > LOOK_SECONDS:
                    looked = time.monotonic()
                    for event in ray.get(board.take.remote()):
                        if event.kind != "started" or event.piece not in begun:
                            begun.add(event.piece)
                            yield event
                for task in ended:
                    job = self.flying.pop(task)
                    for event in self._outcome(task, job, lost, waiting):
                        yield event
                        if fail_fast and event.kind == "failed":
                            return
        ray.kill(board)

    def _most(self) -> int:
        return self.count if self.launch.workers else self.count + max(self.count, AHEAD)

    def _gpus(self, piece: Piece) -> float:
        """The share of a GPU that a piece takes."""
        if self.launch.gpus == "auto" and self.cluster.card:
            return share(piece.memory, self.cluster.card)
        return float(self.launch.gpus or 0)

    def _task(self, job: Job, board: Any, mark: str) -> Any:
        import ray

        piece = job.piece
        memory = min(WORKER_MEMORY + (piece.memory if self.device.is_cpu else 0), self.cluster.most("memory"))
        kept = {path.name: path.read_bytes() for path in Folder(job.folder).checkpoints(piece.index)}
        options = ray.remote(
            num_cpus=piece.threads,
            num_gpus=self._gpus(piece),
            memory=int(memory),
            max_retries=0,
            name=f"gradlab piece {piece.index}",
        )
        return options(train_piece).remote(
            job, self.device.name, board, kept, mark, str(Path.cwd()), gradlab.__version__
        )

    def _outcome(self, task: Any, job: Job, lost: dict[int, int], waiting: deque[Job]) -> Iterator[Event]:
        """What becomes of a task that has ended."""
        import ray
        from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, TaskCancelledError

        index = job.piece.index
        try:
            event, files = ray.get(task)
        except RayTaskError as error:
            yield bury(job, f"Ray: {_last_line(error)}")
        except TaskCancelledError:
            yield bury(job, "Ray: the task was cancelled")
        except OutOfMemoryError:
            chunks = halved(job.piece.chunks)
            if chunks is None:
                yield bury(job, "Ray: the node ran out of memory")
                return
            waiting.appendleft(replace(job, piece=replace(job.piece, chunks=chunks)))
            yield Event("halved", index, chunks=chunks)
        except RayError as error:
            lost[index] = lost.get(index, 0) + 1
            what = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            if lost[index] > self.launch.retries:
                yield bury(job, f"Ray: lost {lost[index]} times: {what}")
                return
            waiting.appendleft(job)
            yield Event(
                "told", index, details=f"Piece {index} was lost with its worker or node, and is run again: {what}"
            )
        else:
            try:
                _written(job, files)
            except OSError as error:
                yield Event("unwritable", index, 1.0, error=f"tables cannot be written: {error.strerror}")
                return
            yield bury(job, "Ray: the task was interrupted") if event.kind == "stopped" else event


def share(memory: int, card: int) -> float:
    """The hundredths of a GPU of ``card`` bytes that a piece of ``memory`` bytes takes, all of it at most.

    >>> share(7 << 30, 80 << 30), share(0, 8 << 30), share(80 << 30, 80 << 30)
    (0.1, 0.13, 1.0)
    """
    return min(1.0, math.ceil(100 * (memory + CONTEXT) / card) / 100)


@contextmanager
def crew_of(launch: Launch) -> Iterator[Crew]:
    """The tasks of the cluster that ``launch.address`` names, of the one of this machine, or of Ray started here.

    Raises `SpecError` where it is not to be reached, or has not what is asked for.
    """
    import ray

    with _connected(launch.address) as address:
        nodes = tuple(node["Resources"] for node in ray.nodes() if node["Alive"])
        card = None
        if launch.gpus and max(node.get("GPU", 0.0) for node in nodes) == 0:
            raise SpecError(f"launch.gpus={launch.gpus}: no node of the Ray cluster at {address} has a GPU")
        if launch.gpus == "auto":
            card = ray.get(ray.remote(num_gpus=1)(card_memory).remote())
        device = planned_for(launch)
        device = replace(device, memory=card // 4) if card else device
        yield Crew(device, launch, Cluster(address, nodes, card))


@contextmanager
def _connected(address: str | None) -> Iterator[str]:
    import ray

    _answered(address)
    # Whoever starts Ray by hand decides on its own what it tells its makers; what is started here tells nothing.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ends = signal.getsignal(signal.SIGTERM)
    began = not ray.is_initialized()
    try:
        if began:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SpecError(f"launch.address={address}: no Ray cluster there: {_last_line(error)}") from error
    finally:
        # Ray has a handler of its own, which would end the command without a word.
        signal.signal(signal.SIGTERM, ends)
    try:
        yield str(ray.get_runtime_context().gcs_address)
    finally:
        if began:
            ray.shutdown()


def _answered(address: str | None) -> None:
    """Raises `SpecError` where nobody listens at ``address``: Ray would ask for 20 s, and say so each second."""
    given = re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+)\]?:(\d{1,5})", address or "")
    if given is None:
        return
    try:
        socket.create_connection((given[1], min(int(given[2]), 65535)), REACH_SECONDS).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise SpecError(f"launch.address={address}: no Ray cluster there: {why}") from error


@contextmanager
def _marked(folder: Path) -> Iterator[str]:
    """A file among the pieces that tells a node whether it sees the same folder."""
    mark = Folder(folder).pieces / f".seen-{uuid.uuid4().hex}.{os.getpid()}"
    mark.touch()
    try:
        yield mark.name
    finally:
        mark.unlink(missing_ok=True)


def _written(job: Job, files: Mapping[str, bytes]) -> None:
    """Writes what a node sent; its runs come last, and say that the piece is whole."""
    for name in sorted(files, key=lambda name: name.endswith(".runs.parquet")):
        path = job.folder / name
        path.parent.mkdir(exist_ok=True)
        atomic.replace(path, lambda temporary, content=files[name]: temporary.write_bytes(content))  # type: ignore[misc]


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
