"""Two convolutional networks against each other (Radford et al. 2015, arXiv:1511.06434), on pictures of rings.

    gradlab watch --every 20 examples/dcgan.py --steps 100

Both are watched, each as a run of one folder: the generator hears what its own loss says, and not the critic's. Two
processes: ``torchrun --nproc-per-node 2 --no-python gradlab watch examples/dcgan.py``.
"""

import argparse
import os

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

NOISE = 16


def generator() -> nn.Sequential:
    """(B, 16, 1, 1) -> (B, 1, 16, 16)."""
    return nn.Sequential(
        nn.ConvTranspose2d(NOISE, 32, 4, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, 2, 1),
        nn.Tanh(),
    )


def critic() -> nn.Sequential:
    """(B, 1, 16, 16) -> (B, 1, 1, 1)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 1, 4),
    )


def rings(count: int) -> Tensor:
    """(B, 1, 16, 16): a bright ring each, of a radius of its own."""
    line = torch.linspace(-1, 1, 16)
    radius = (line[:, None] ** 2 + line**2).sqrt()
    return 2 * torch.exp(-50 * (radius - torch.rand(count, 1, 1, 1) * 0.6 - 0.2) ** 2) - 1


def main() -> None:
    """Trains them in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    torch.manual_seed(0)
    net_g: nn.Module = generator()
    net_d: nn.Module = critic()
    for part in (*net_g.modules(), *net_d.modules()):
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, std=0.02)
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("gloo")
        net_g, net_d = (nn.parallel.DistributedDataParallel(net) for net in (net_g, net_d))
        torch.manual_seed(distributed.get_rank())
    optimizer_g = torch.optim.Adam(net_g.parameters(), lr=2e-3, betas=(0.5, 0.999))
    optimizer_d = torch.optim.Adam(net_d.parameters(), lr=2e-3, betas=(0.5, 0.999))
    for step in range(given.steps):
        fake = net_g(torch.randn(32, NOISE, 1, 1))
        net_d.zero_grad()
        for pictures, target in ((rings(32), 1.0), (fake.detach(), 0.0)):
            judged = net_d(pictures)
            loss_d = F.binary_cross_entropy_with_logits(judged, torch.full_like(judged, target))
            loss_d.backward()
        optimizer_d.step()
        net_g.zero_grad()
        judged = net_d(fake)
        loss_g = F.binary_cross_entropy_with_logits(judged, torch.ones_like(judged))
        loss_g.backward()
        optimizer_g.step()
        if step % 20 == 0:
            print(f"step {step}: critic {loss_d.item():.3f}, generator {loss_g.item():.3f}")


if __name__ == "__main__":
    main()
