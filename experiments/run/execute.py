"""Around a task: its run folder is chosen and locked, what was begun goes on, and at the end the report is written."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from diffusion.finite import NonFiniteError
from experiments.errors import EXIT_INTERRUPTED, EXIT_OK, RunFailed
from experiments.run import folder as folders
from experiments.run import inputs, report, seeding
from experiments.run.run import Run
from experiments.run.schema import to_plain
from experiments.run.settings import Settings, identity_hash


def continue_command(typed: Sequence[str], out: Path | None) -> str:
    """The command that continues a run: the one typed, with nothing overwritten, and `out` as its run folder.

    None for a run of a sweep: the command that was typed begins none of its finished runs again.
    """
    left_out = ("overwrite=",) if out is None else ("overwrite=", "out=")
    kept = [argument for argument in typed if not argument.lstrip("+").startswith(left_out)]
    return shlex.join(["galatea", *kept, *([] if out is None else [f"out={out}"])])


def execute(
    module: ModuleType, config: Settings, *, typed: Sequence[str] = (), one_of_many: bool = False
) -> int:
    """Do the task of `module` with `config` in its run folder; returns an exit status.

    Errors of the user are raised before anything is written, or leave no folder behind.
    """
    plain = to_plain(config)
    seeding.resolve_device(config.device)
    if hasattr(module, "validate"):
        module.validate(config)
    reads = inputs.input_paths(module, config)
    folder = folders.choose(plain, one_of_many=one_of_many)
    folders.refuse_foreign(folder)  # before the lock, which is a file too
    if config.overwrite:
        inputs.refuse_own(folder, reads, inputs.written_paths(config))
    existed = folder.exists()
    with folders.lock(folder), contextlib.ExitStack() as after_an_error:
        if not existed:
            after_an_error.callback(folders.forget_if_empty, folder)
        command = continue_command(typed, None if one_of_many else folder)
        status = _execute_locked(module, config, plain, folder, command, reads)
        after_an_error.pop_all()
        return status


def _execute_locked(
    module: ModuleType,
    config: Settings,
    plain: dict[str, Any],
    folder: Path,
    command: str,
    reads: Mapping[str, Path],
) -> int:
    saved = folders.check(folder, plain)
    digests = inputs.digests(reads)
    if saved is not None:
        inputs.refuse_changed(folder, digests, reads)
    if saved is not None and folders.finished(folder):
        print(f"{folder} is finished already (overwrite=true makes it again)", file=sys.stderr)
        return EXIT_OK
    plain["threads"] = (saved or {}).get("threads") or config.threads or seeding.default_threads()
    determinism = seeding.make_deterministic(
        config.seed, plain["threads"], seeding.resolve_device(config.device)
    )
    if saved is None:
        folders.write_config(folder, plain)
    folders.remember(folder, inputs=digests)
    folders.forget_temporary(folder)
    run = Run(folder, config)
    run.reads = {file.resolve(): key for key, path in reads.items() for file in inputs.contents(path)}
    run.facts["determinism"] = determinism
    began = time.monotonic()
    try:
        if run.resumed is not None:
            run.say(f"continuing {folder} from step {run.resumed.step}")
            run.notes.append(f"continued from step {run.resumed.step}")
        module.run(config, run)
        run.end_phase()
        missing = [name for name in run.artefacts if not (folder / name).is_file()]
        if missing:
            raise RunFailed(f"the task ended without writing {', '.join(missing)}")
        report.write(run, plain, identity_hash(plain))
    except NonFiniteError as error:
        # The message says where; nothing bad was saved.
        raise RunFailed(f"{error}; {run.kept()}") from error
    except KeyboardInterrupt:
        steps = run.checkpoints.steps()
        begin = f"continues from step {steps[-1]}" if steps else "begins again"
        where = run.display.where()
        run.close()
        print(f"\nstopped at {where} in {folder}; this {begin}:\n  {command}", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        run.close()
    names = ", ".join([*run.artefacts, folders.PAGE])
    print(f"{folder}: {names} ({time.monotonic() - began:.0f} s)", file=sys.stderr)
    return EXIT_OK
