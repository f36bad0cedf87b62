"""Cures of a dozen sick runs: what heals each, at what cost, as the table of docs/cure.md.

    python -m benchmarks.cures                        all of them, one after another, as a table in Markdown
    python -m benchmarks.cures "deep sigmoid" ...     these alone
    python -m benchmarks.cures --into DIR             results in folders of DIR, which are read again where they are

Each is one `gradlab cure` in a process of its own, as a user would start it. The settings were chosen after the
remedies.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.timing import GRADLAB
from gradlab.cure.ranking import Outcome, front, is_healthy, outcomes
from gradlab.diagnose.numbers import number
from gradlab.spec.named import SpecError, nearest
from gradlab.store.documents import read_manifest
from gradlab.store.tables import load_tables

SICK: dict[str, tuple[str, ...]] = {
    "deep tanh, small weights": ("model.depth=20", "model.activation=tanh", "model.gain=0.5"),
    "deep sigmoid": ("model.depth=20", "model.activation=sigmoid", "model.init=xavier"),
    "deep gelu": ("model.depth=24", "model.activation=gelu", "model.init=xavier"),
    "softplus": ("model.depth=16", "model.activation=softplus"),
    "residual growth": ("model=residual_mlp", "model.depth=60"),
    "recurrent, small weights": (
        *("model=rnn", "data=adding", "data.length=20", "model.width=32"),
        *("model.activation=tanh", "model.gain=0.3", "optim=adam", "optim.lr=0.003"),
    ),
    "huge targets": ("data=linear_teacher", "model.depth=4", "data.target_scale=1000"),
    "huge targets, quicker": ("data=linear_teacher", "model.depth=3", "data.target_scale=1000", "optim.lr=1"),
    "too large a learning rate": ("model.depth=6", "optim.lr=3"),
    "weight decay": ("model.depth=6", "optim.weight_decay=0.3"),
    "momentum": ("model.depth=6", "optim.lr=0.3", "optim.momentum=0.99"),
    "large biases": ("model.depth=16", "model.activation=tanh", "model.bias_var=4"),
}
"""Overrides by the name of what is wrong."""


def cured(name: str, folder: Path) -> list[Outcome]:
    """What the changes of a sick run came to, the run itself first; it is cured in ``folder`` unless it has been."""
    if not (folder / "manifest.json").is_file():
        command = [GRADLAB, "cure", *SICK[name], "-o", str(folder), "--no-report", "-q"]
        subprocess.run(command, check=True)
    return outcomes(read_manifest(folder)["cure"], load_tables(folder))


def row(name: str, found: Sequence[Outcome]) -> str:
    """One row of the table: the setting, what it was, what heals it."""
    before, *tried = found
    setting = f"{name}: `{' '.join(SICK[name])}`"
    was = f"{before.verdict}, {number(before.final)}"
    if is_healthy(before):
        return f"| {setting} | {was} | nothing to cure | | | |"
    count = Counter(one.state for one in tried)
    best = front(tried)
    told = "<br>".join(f"`{one.change['override']}`" for one in best) or "nothing"
    if best and best[0].state == "helps":
        told = f"nothing; helps:<br>{told}"
    costs = "<br>".join(str(one.cost) for one in best)
    losses = "<br>".join(number(one.final) for one in best)
    return (
        f"| {setting} | {was} | {told} | {costs} | {losses} | {count['heals']} and {count['helps']} of {len(tried)} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cures", description="Cures of sick runs.")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--into", type=Path)
    given = parser.parse_args(arguments)
    for name in given.names:
        if name not in SICK:
            raise SystemExit(str(SpecError(f"no setting {name!r}{nearest(name, SICK) or ';'} {', '.join(SICK)}")))
    print("| sick | as it was: verdict, final loss | the smallest that heal | cost | final loss | heal and help |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        into = given.into or Path(scratch)
        for name in given.names or SICK:
            print(row(name, cured(name, into / name.replace(",", "").replace(" ", "-"))), flush=True)


if __name__ == "__main__":
    main()
