"""`galatea` with the test task added, for tests that need a process of its own."""

from __future__ import annotations

import sys

from experiments import tasks
from experiments.cli import main

tasks.TASKS["counting"] = "tests.experiments.counting"

if __name__ == "__main__":
    sys.exit(main())
