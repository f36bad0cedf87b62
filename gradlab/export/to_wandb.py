"""Runs of Weights & Biases, offline unless WANDB_MODE says otherwise: files that `wandb sync` uploads."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from gradlab.export.contents import Contents, Place
from gradlab.spec.named import SpecError


def write(contents: Contents, place: str) -> list[Place]:
    """All runs below ``place``, as runs of one group of the project, which is WANDB_PROJECT where that is set."""
    import wandb

    mode = os.environ.get("WANDB_MODE", "offline")
    try:
        for run in contents.runs():
            with wandb.init(
                project=os.environ.get("WANDB_PROJECT", contents.name),
                dir=place,
                id=run.run_id,
                name=run.label,
                group=contents.name,
                notes="\n".join(run.sentences),
                tags=[run.state, *run.verdicts],
                config=dict(run.settings),
                mode=mode,
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    # Of the run, and not of where it is exported.
                    **dict.fromkeys(("disable_git", "disable_code", "x_disable_stats", "x_disable_meta"), True),
                    x_save_requirements=False,
                ),
            ) as seen:
                for step, values in run.rows:
                    seen.log(values, step=step)
                seen.summary.update({**run.outcomes, "state": run.state, "verdict": run.verdict})
                if run.state == "failed":
                    seen.finish(exit_code=1)
    except wandb.Error as error:
        raise SpecError(f"--to wandb: {error}") from error
    if mode != "offline":
        return [("runs", place)]
    return [("runs", place), ("upload", f"wandb sync {shlex.quote(str(Path(place) / 'wandb'))}/offline-run-*")]
