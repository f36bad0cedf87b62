"""How attention spreads: the entropy of its weights over the logarithm of what could be attended to."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

MOST_ROWS = 1024
"""Rows of attention weights that are looked at, evenly spread: their mean entropy is known well by so many."""

MOST_HEADS, MOST_QUERIES = 4, 64
"""Of fused attention, which never holds its weights, so many heads and queries are computed again."""


MASKED = -1e4
"""Logits below it are masks, which some networks write as a large negative number."""


class Spread(NamedTuple):
    """How one attention spreads: `entropy`, and the largest of its logits."""

    entropy: float
    largest: float


def entropy(probabilities: Tensor, dim: int) -> float:
    """The mean over rows of the entropy along ``dim``, 0 of a choice and 1 of an even spread; nan of a single key.

    What is masked has probability zero and counts as no choice: a causal row of k keys is compared with ln k.
    """
    rows = probabilities.detach().movedim(dim, -1).reshape(-1, probabilities.shape[dim])
    rows = rows[:: max(1, len(rows) // MOST_ROWS)]
    rows = rows if rows.dtype == torch.float64 else rows.float()
    # p ln p, and nothing where p is zero.
    sums = rows.clamp_min(torch.finfo(rows.dtype).tiny).log_().mul_(rows).sum(1)
    choices = rows.sign().sum(1)
    several = choices > 1
    if not bool(several.all()):
        sums, choices = sums[several], choices[several]
    return 0.0 - float((sums / choices.log()).mean(dtype=torch.float64)) if len(sums) else math.nan


def entropy_of(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None, *, causal: bool) -> Spread:
    """The same of fused attention, from some of its heads and queries.

    ``query`` (B, H, T, D) and ``key`` (B, H, S, D); ``mask`` is added to the logits, or says which may be looked at.
    """
    q, k = (one.detach().flatten(0, -3)[:MOST_HEADS].double() for one in (query, key))
    places = torch.arange(0, q.shape[1], max(1, q.shape[1] // MOST_QUERIES), device=q.device)
    logits = q[:, places] @ k.transpose(1, 2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if causal:
        logits = logits.masked_fill(torch.arange(k.shape[1], device=q.device) > places[:, None], -math.inf)
    if mask is not None:
        # The heads that are looked at, without a copy of the mask for all.
        heads = torch.unravel_index(torch.arange(len(q), device=mask.device), query.shape[:-2])
        whole = mask.expand(*query.shape[:-1], key.shape[-2])[heads][:, places]
        logits = logits.masked_fill(~whole, -math.inf) if whole.dtype == torch.bool else logits + whole
    return Spread(entropy(logits.softmax(-1), -1), largest(logits))


def largest(logits: Tensor) -> float:
    """The largest size of a logit that is not masked."""
    entries = logits.detach()
    if not entries.numel():
        return math.nan
    low, high = map(float, torch.aminmax(entries))
    if low > MASKED and high < math.inf:
        return max(-low, high)
    known = (entries > MASKED) & (entries < math.inf)
    found = float(torch.where(known, entries.abs(), -1).amax())
    return found if found >= 0 else math.nan
