"""Gradients clipped before they are unscaled: the threshold then cuts the scaled ones, and training all but stops.

    gradlab watch examples/clip_before_unscale.py            its verdict names the cause
    gradlab watch examples/clip_before_unscale.py --right    the one line that was missing

`torch.amp.GradScaler` multiplies the loss by 65,536 and more, so that small gradients survive half precision. What
`clip_grad_norm_` then sees is as many times too long; after `scaler.step` has divided it, next to nothing is left.
"""

import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=120)
parser.add_argument("--right", action="store_true", help="unscale before clipping")
args = parser.parse_args()

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
inputs = torch.randn(512, 20)
classes = inputs[:, :4].argmax(1)
for step in range(args.steps):
    chosen = torch.randint(len(inputs), (64,))
    with torch.autocast("cpu", dtype=torch.float16):
        loss = nn.functional.cross_entropy(model(inputs[chosen]), classes[chosen])
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    if args.right:
        scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    if step % 20 == 0:
        print(f"step {step}: loss {loss.item():.3f}")
