"""The jobs that `galatea` can do, by name.

How to add one. Write its settings and its work, add a line to `TASKS`, and write
`configs/experiment/<family>/<name>.yaml` that names the task:

    # configs/my_task.py, beside the module of the work; it imports nothing that imports torch
    @dataclass(frozen=True, kw_only=True)
    class Config(Settings):              # experiments.run.settings: seed, device, out, checkpoint_every, ...
        caption: Text                    # Text, FilePath, FolderPath: taken as typed at the command line
        learning_rate: float = 1e-4      # fields may be other components' frozen dataclasses
        def __post_init__(self) -> None: # checks here fail before anything is written
            super().__post_init__()

    # my_task.py
    def run(config: Config, run: Run) -> None: ...   # experiments.run.run.Run

    # configs/experiment/train/mine.yaml
    # @package _global_
    # One line that `galatea --help` shows.
    defaults:
      - /task: my_task
      - _self_
      - /budget/my_task: ${budget}                   # one of configs/budget/my_task/{smoke,cpu,gpu}.yaml
    learning_rate: 3.0e-4

What `run` offers (see `Run`): `run.folder`, `run.device`, `run.generator("name")`; `run.checkpoints.latest()` and
`run.save(step, tensors, metadata)`; `run.resumed`, the newest good checkpoint or None; `with run.phase("fit", 400):`
around timed parts, `run.log(step, loss=...)` inside; `run.artefact("mesh.glb", kind="mesh")` to record what was
written; `run.inputs[...]`, `run.facts[...]`, `run.metrics[...]` for the report; `run.generated_by_ai = True` where a
generative model takes part in what the run makes, and `run.media_tags()` for a video; `run.say("...")` for the user.
Saying that the run is finished, locking, provenance.json and report.json are done by the caller.

A task may also define `validate(config) -> None` for checks that need files or models but no work, and
`inputs(config) -> dict[str, Path]` for files that it reads although no setting names them. Files and folders that
settings name are known by the fields' types (`FilePath`, `FolderPath`): the caller tells them by their content, refuses
to continue a run whose inputs have changed, and never removes one. A setting whose folder is written to is listed in
`experiments.run.inputs.WRITTEN`.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from experiments.errors import UserError, did_you_mean
from experiments.run.settings import Settings

# Task name -> module. Modules are imported when their task is asked for, never for `--help`.
TASKS: dict[str, str] = {
    "text_to_3d": "experiments.tasks.text_to_3d",
    "benchmark_text_to_3d": "experiments.tasks.benchmark_text_to_3d",
    "benchmark_talk": "experiments.tasks.benchmark_talk",
    "benchmark_talk_files": "experiments.tasks.benchmark_talk_files",
    "benchmark_methods": "experiments.tasks.benchmark_methods",
    "benchmark_tiny": "experiments.tasks.benchmark_tiny",
    "benchmark_speed": "experiments.tasks.benchmark_speed",
    "text_to_talk": "experiments.tasks.text_to_talk",
    "talk": "experiments.tasks.talk",
    "sample": "experiments.tasks.sample",
    "train_clip": "experiments.tasks.train_clip",
    "train_vae": "experiments.tasks.train_vae",
    "train_multiview": "experiments.tasks.train_multiview",
    "train_decoder": "experiments.tasks.train_decoder",
    "train_talk": "experiments.tasks.train_talk",
    "train_sound": "experiments.tasks.train_sound",
    "train_measure": "experiments.tasks.train_measure",
}


def load(name: str) -> ModuleType:
    """The module that does a task's work. It loads torch and models: ask for it when the settings are known good."""
    return importlib.import_module(_module(name))


def config(name: str) -> type[Settings]:
    """The `Config` of a task, from `configs/` beside the module of its work, or from that module itself."""
    package, _, module = _module(name).rpartition(".")
    apart = f"{package}.configs.{module}"
    try:
        found = importlib.util.find_spec(apart) is not None
    except ModuleNotFoundError:  # there is no `configs` beside it
        found = False
    return importlib.import_module(apart if found else TASKS[name]).Config


def _module(name: str) -> str:
    if name not in TASKS:
        raise UserError(
            f"unknown task {name!r}.{did_you_mean(name, TASKS)} There are: {', '.join(sorted(TASKS))}"
        )
    return TASKS[name]
