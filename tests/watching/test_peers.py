"""Two processes that train one network together are seen as one that trains it alone on the whole batch."""

from __future__ import annotations

import gc
import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional as F

import gradlab
from tests.commands import preloading, wait_for


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


def batch() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))
    return inputs, inputs[:, :3].argmax(1)


def train(net: nn.Module, data: tuple[Tensor, Tensor], out: Path) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with gradlab.watch(net, optimizer, every=1, out=out, quiet=True, report=False) as seen:
        for _ in range(2):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(data[0]), data[1])
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            optimizer.step()
            seen.step(loss)


def worker(rank: int, kind: str, out: Path, port: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    net: nn.Module = network()
    inputs, classes = batch()
    if kind == "fsdp":
        from torch.distributed.fsdp import fully_shard

        for part in net.children():
            if isinstance(part, nn.Linear):
                fully_shard(part)
        fully_shard(net)
    elif kind == "fsdp1":
        from torch.distributed.fsdp import FullyShardedDataParallel

        net = FullyShardedDataParallel(net, device_id=torch.device("cpu"))
    else:
        net = nn.parallel.DistributedDataParallel(net)
    part_of = inputs.chunk(2)[rank], classes.chunk(2)[rank]
    if kind == "one":
        # The other process trains too, and nobody watches it: nothing waits for it.
        if rank == 0:
            train(net, part_of, out)
        else:
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            for _ in range(2):
                optimizer.zero_grad()
                F.cross_entropy(net(part_of[0]), part_of[1]).backward()
                optimizer.step()
    else:
        train(net, part_of, out)
    # First what reduces the gradients: as the last owner of the group it would wait for the group's threads, which may
    # wait for this one.
    del net
    gc.collect()
    distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        number: int = one.getsockname()[1]
        return number


def together(kind: str, out: Path) -> None:
    """Both processes to their end, forked from one that has imported torch."""
    preloading()
    given = (kind, out, free_port())
    both = multiprocessing.start_processes(worker, given, nprocs=2, join=False, start_method="forkserver")  # type: ignore[attr-defined,no-untyped-call]
    try:
        wait_for(lambda: both.join(timeout=1.0))
    finally:
        for process in both.processes:
            process.kill()


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_are_seen_as_one(kind: str, tmp_path: Path) -> None:
    train(network(), batch(), tmp_path / "alone")
    together(kind, tmp_path / "two")
    alone, two = gradlab.load(tmp_path / "alone"), gradlab.load(tmp_path / "two")
    for frame, other, columns in (
        (alone.steps, two.steps, ["loss", "grad_norm", "grad_norm_clipped"]),
        (
            alone.layers,
            two.layers,
            [
                *(
                    "grad_norm",
                    "weight_grad_norm",
                    "signal_grad_norm",
                    "signal_grad_rms",
                    "trunk_grad_norm",
                    "grad_rms",
                ),
                *("weight_norm", "update_ratio", "act_mean", "act_std", "saturated", "grad_norm_clipped", "calls"),
            ],
        ),
    ):
        for column in columns:
            assert other[column].tolist() == pytest.approx(frame[column].tolist(), rel=1e-4, nan_ok=True), column
    assert two.layers["name"].tolist() == alone.layers["name"].tolist()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_of_the_older_fsdp_the_course_is_seen(tmp_path: Path) -> None:
    train(network(), batch(), tmp_path / "alone")
    together("fsdp1", tmp_path / "two")
    alone, two = gradlab.load(tmp_path / "alone"), gradlab.load(tmp_path / "two")
    # At the first step: after it torch's clipping takes each process's part for the whole.
    for column in ("loss", "grad_norm"):
        assert two.steps[column][0] == pytest.approx(alone.steps[column][0], rel=1e-4), column
    # It lays the weights of all layers into one flat parameter.
    assert not (two.layers["layer"] > 0).any()


def test_nobody_waits_for_a_process_that_is_not_watched(tmp_path: Path) -> None:
    together("one", tmp_path / "out")
    assert len(gradlab.load(tmp_path / "out").steps) == 2
