"""Making the assets of a benchmark within its own run, which tells of each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from experiments.benchmark.assets import Asset, Job, forget_refused, make_assets
from experiments.errors import RunFailed, UserError
from experiments.run.run import Run


def make(
    run: Run,
    jobs: Sequence[Job],
    *,
    at_once: int,
    name: str = "assets",
    begun: int = 0,
    record: Path | None = None,
) -> list[Asset]:
    """The assets of `jobs`, in their order; UserError where the settings are refused, RunFailed where none is made.

    name: what the run calls this part of it. begun: how many assets it has made before these. record: a file of the
    run's beginning, which goes with a refusal, so that the folder is free for a corrected command.
    """
    assets: list[Asset] = []
    run.begin_phase(name, len(jobs))
    with closing(make_assets(jobs, at_once=at_once)) as made:
        for done, (job, asset) in enumerate(zip(jobs, made, strict=True), start=begun + 1):
            if asset.refused and done == begun + 1:
                # The settings are wrong, so they are for all: leave the folder free for a corrected command.
                if record is not None:
                    record.unlink()
                forget_refused(asset)
                raise UserError(asset.reason)
            assets.append(asset)
            run.display.update(done - begun, {})
            if run.resumed is None or done > run.resumed.step:
                # What there is to keep lies in the assets' own folders.
                run.save(done, {"done": torch.tensor(done)})
            spent = f"{asset.report['seconds_total']:.0f} s" if asset.report else f"failed: {asset.reason}"
            run.say(f"{job.label} {job.case.caption}: {spent}")
    run.end_phase()
    if all(asset.report is None for asset in assets):
        raise RunFailed(f"no asset could be made; the first: {assets[0].reason}")
    return assets


def backbone_of(assets: Sequence[Asset], out: Path) -> dict[str, Any]:
    """What the reports say about the backbone; UserError when it was trained on between two assets."""
    told = [asset.report["backbone"] for asset in assets if asset.report is not None]
    if any(one != told[0] for one in told):
        raise UserError(
            f"backbone {told[0]['name']!r} has other weights than when {out} was begun, and some assets are of the "
            "old ones; choose another out=DIR, or overwrite=true to make all again"
        )
    return told[0]
