"""Means over the captions of a benchmark, by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.benchmark.cases import GROUPS
from experiments.benchmark.scoring import mean_scores


def summarise(scored: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of the groups that there are, and of all assets together."""
    summary = {}
    for name in (*GROUPS, "all"):
        members = [entry for entry in scored if name in ("all", entry["group"])]
        if not members:
            continue
        controls = dict.fromkeys(control for entry in members for control in entry["controls"])
        summary[name] = {
            "count": len(members),
            "failed": sum(bool(entry["reason"]) for entry in members),
            "scores": mean_scores([entry["scores"] for entry in members]),
            "costs": mean_scores([entry["costs"] for entry in members]),
            "controls": {
                control: mean_scores(
                    [entry["controls"][control] for entry in members if control in entry["controls"]]
                )
                for control in controls
            },
        }
    return summary
