"""A small language model of characters, as GPT-2 is built (Radford et al. 2019), that learns its own source.

    gradlab watch --every 20 examples/transformer.py --steps 200

Two processes: ``torchrun --nproc-per-node 2 --no-python gradlab watch examples/transformer.py``. ``--scale 40`` draws
its weights forty times too large: attention looks at one place alone, and the table says so.
"""

import argparse
import os
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and beside the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        q, k, v = self.attend(self.norm_1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).flatten(-2))
        return x + self.narrow(F.gelu(self.widen(self.norm_2(x))))


class Transformer(nn.Module):
    """Embeddings, blocks, and a read-out that shares the embedding's weights."""

    def __init__(self, letters: int, reach: int, width: int = 64, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(letters, width), nn.Embedding(reach, width)
        self.blocks, self.norm = nn.Sequential(*(Block(width, heads) for _ in range(depth))), nn.LayerNorm(width)
        self.out = nn.Linear(width, letters, bias=False)
        self.out.weight = self.letters.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, letters)."""
        x = self.letters(tokens) + self.places(torch.arange(tokens.shape[1]))
        out: Tensor = self.out(self.norm(self.blocks(x)))
        return out


def main() -> None:
    """Trains it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the initial weights")
    given = parser.parse_args()
    torch.manual_seed(0)
    text = Path(__file__).read_text(encoding="utf-8")
    letters = sorted(set(text))
    data, reach = torch.tensor([letters.index(letter) for letter in text]), 32
    model: nn.Module = Transformer(len(letters), reach)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02 * given.scale)
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("gloo")
        model = nn.parallel.DistributedDataParallel(model)
        torch.manual_seed(distributed.get_rank())
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.lr)
    for step in range(given.steps):
        starts = torch.randint(0, len(data) - reach - 1, (16,))
        windows = torch.stack([data[start : start + reach + 1] for start in starts])
        loss = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
