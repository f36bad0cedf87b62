"""One network with the economy preset of Cockpit on it, every quantity at every step; and the same network bare.

Run as ``PYTHON -m benchmarks.cockpit_peer`` with the interpreter of an environment that holds gradlab and
cockpit-for-pytorch 1.0.2. Cockpit asks for backpack-for-pytorch below 2.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from backpack import extend
from cockpit import Cockpit
from cockpit.utils.configuration import configuration
from torch import nn

from benchmarks.loop import Digits, digits, network
from benchmarks.probes import PLAIN, PLAIN_STEPS, nothing, train
from benchmarks.settings import BATCH


def train_with_cockpit(data: Digits) -> float:
    """The seconds of ``PLAIN_STEPS`` updates."""
    torch.manual_seed(0)
    net = extend(network(PLAIN))
    mean_loss, each_loss = extend(nn.CrossEntropyLoss()), extend(nn.CrossEntropyLoss(reduction="none"))
    cockpit = Cockpit(list(net.parameters()), quantities=configuration("economy"))
    optimizer = torch.optim.SGD(net.parameters(), lr=PLAIN.lr, foreach=True)
    batches = torch.randint(len(data.inputs), (PLAIN_STEPS, BATCH))
    start = time.perf_counter()
    for step, batch in enumerate(batches):
        optimizer.zero_grad()
        outputs, classes = net(data.inputs[batch]), data.classes[batch]
        loss = mean_loss(outputs, classes)
        told = {
            "batch_size": BATCH,
            "individual_losses": each_loss(outputs, classes),
            "loss": loss,
            "optimizer": optimizer,
        }
        with cockpit(step, info=told):
            loss.backward(create_graph=cockpit.create_graph(step))
        optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    """Prints one line of JSON: the seconds of each repeat, with nothing and with Cockpit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="of each (default 3)")
    data = digits()
    train(nothing, data)
    turns = [(train(nothing, data), train_with_cockpit(data)) for _ in range(parser.parse_args().repeats)]
    bare, watched = zip(*turns, strict=True)
    print(json.dumps({"nothing": bare, "cockpit": watched}))


if __name__ == "__main__":
    main()
