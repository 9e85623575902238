"""Under what circumstances a benchmark's numbers came about: the command and the machine."""

from __future__ import annotations

import json
import os
import shlex
from datetime import datetime, timezone
from typing import Any

from experiments.run.inputs import without_places
from experiments.run.machine import cpu_name
from experiments.run.provenance import code_commit, version
from experiments.run.run import Run
from experiments.run.schema import to_plain
from experiments.run.settings import Settings, flatten

_SAID_APART = ("task", "experiment", "budget", "out", "overwrite", "checkpoint_every")


def command(config: Settings, plain: Settings) -> str:
    """The command line that asks for `config`, with every setting in which it differs from `plain`, the defaults."""
    parts = ["galatea", f"experiment={config.experiment}", f"budget={config.budget}"]
    defaults = flatten(to_plain(plain))
    for key, value in without_places(flatten(to_plain(config)), config).items():
        if key.split(".")[0] in _SAID_APART or value == defaults.get(key):
            continue
        if key == "backbone.name":
            key = "backbone"
        parts.append(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
    return shlex.join([*parts, f"out={without_places(config.out, config) or '...'}"])


def load_average() -> float | None:
    """How many processes compete for the processor; None where that is not known."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def head(config: Settings, plain: Settings, run: Run, load: float | None) -> dict[str, Any]:
    """What every benchmark's result begins with. plain: as in `command`; load: `load_average` at the start."""
    return {
        "experiment": config.experiment,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command(config, plain),
        "generator": {"version": version(), **code_commit()},
        "backbone": run.facts["backbone"],
        "hardware": {**hardware(run), "load_average": load},
    }


def hardware(run: Run) -> dict[str, Any]:
    """Processor, cores, memory and device of this machine."""
    try:
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        memory = None
    device = run.facts["device"]["name"] if run.device.type == "cuda" else "cpu"
    return {"processor": cpu_name(), "cores": os.cpu_count(), "memory_gb": memory, "device": device}
