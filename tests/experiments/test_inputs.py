"""What a run reads: told by its content, so that no run mixes two, and never removed by the run itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from experiments import tasks
from experiments.errors import UserError
from experiments.run import folder as folders
from experiments.run import inputs
from experiments.run.run import Run
from experiments.run.schema import fields_of, twin
from experiments.run.settings import BackboneName, FilePath, FolderPath, Settings, Text

Galatea = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Inner:
    name: BackboneName = "tiny"
    other: str = "/no/path"


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    picture: FilePath | None = None
    folder: FolderPath | None = None
    several: tuple[FilePath, ...] = ()
    prompt: Text = "/a/prompt"
    inner: Inner = field(default_factory=Inner)
    data_folder: FolderPath = "data"


def config(**values: Any) -> Config:
    return Config(task="t", **values)


TASK = ModuleType("task")


def test_paths_are_known_by_their_types() -> None:
    found = inputs.named_paths(config(out="o", picture="p", several=("a", "b"), inner=Inner(name="n")))
    assert found == {
        "out": "o", "picture": "p", "several[0]": "a", "several[1]": "b", "inner.name": "n", "data_folder": "data",
    }  # fmt: skip


def test_every_path_of_every_task_is_read_or_written() -> None:
    """A new one shows up here: it is an input, or its folder is written to and it belongs into `WRITTEN`."""
    known = {
        "audio", "audio_dir", "backbone.name", "clip", "continue_from", "data_folder", "face_model", "measures",
        "init_mesh", "model", "out", "portrait", "portrait_dir", "prompts", "talking",
        "distillation.reward.folder", "distillation.loss.reward.folder",
        "recipe.*.guidances.*.loss.reward.folder", "recipe.*.guidances.*.loss.loss.reward.folder",
    }  # fmt: skip
    every = (field for name in tasks.TASKS for field in fields_of(tasks.config(name)))
    assert {key for key, annotation in every if inputs._is_path(annotation)} == known
    assert known > inputs.WRITTEN


def test_marks_change_no_schema() -> None:
    assert twin(Config)(task="t").picture is None


def test_a_file_is_told_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"one")
    reads = inputs.input_paths(TASK, config(picture=str(path)))
    first = inputs.digests(reads)["picture"]
    path.touch()
    assert inputs.digests(reads)["picture"] == first
    path.write_bytes(b"two")
    assert inputs.digests(reads)["picture"] != first


def test_a_folder_is_told_by_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "sub" / "b").write_bytes(b"2")
    reads = inputs.input_paths(TASK, config(folder=str(tmp_path)))
    first = inputs.digests(reads)["folder"]
    (tmp_path / "sub" / ".DS_Store").write_bytes(b"view")
    (tmp_path / "Thumbs.db").write_bytes(b"pictures")
    assert inputs.digests(reads)["folder"] == first
    (tmp_path / "a").rename(tmp_path / "c")
    assert inputs.digests(reads)["folder"] != first
    (tmp_path / "c").rename(tmp_path / "a")
    assert inputs.digests(reads)["folder"] == first
    (tmp_path / "sub" / "b").write_bytes(b"3")
    assert inputs.digests(reads)["folder"] != first


def test_a_backbone_is_told_by_what_loading_it_reads(tmp_path: Path, tiny_weights: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_weights, folder)
    reads = inputs.input_paths(TASK, config(inner=Inner(name=str(folder))))
    first = inputs.digests(reads)["inner.name"]
    assert (
        inputs.digests(inputs.input_paths(TASK, config()))["inner.name"] == first
    )  # the packaged one, by its name
    (folder / "talking" / "model.safetensors").write_bytes(b"trained onto it")
    (folder / "README.md").write_text("words")
    assert inputs.digests(reads)["inner.name"] == first
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text() + " ")
    assert inputs.digests(reads)["inner.name"] != first


def test_what_is_written_too_is_no_input(tmp_path: Path) -> None:
    for name in ("data", "x"):
        (tmp_path / name).mkdir()
    found = inputs.input_paths(
        TASK, config(folder=str(tmp_path / "x" / ".." / "data"), data_folder=str(tmp_path / "data"))
    )
    assert found.keys() == {"inner.name"}


@pytest.fixture
def talk(tmp_path: Path) -> tuple[str, ...]:
    """Settings of a short talk/quickstart, and its inputs in the working folder."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "face.png")
    soundfile.write(tmp_path / "speech.wav", 0.1 * rng.standard_normal(4_000), 16_000)
    return (
        "experiment=talk/quickstart", "budget=smoke", "threads=1", "portrait=face.png", "audio=speech.wav",
        "face=center", "animate.num_steps=1", "animate.clip_frames=3", "out=made",
    )  # fmt: skip


def stop_after(galatea: Galatea, command: tuple[str, ...]) -> None:
    """Interrupt a run at its first checkpoint."""

    def save(self: Run, *_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save", save)
        outcome = galatea(*command)
    assert outcome.status == 130, outcome.err


@pytest.mark.parametrize("state", ["stopped", "finished"])
def test_another_file_under_the_same_name_is_refused(
    galatea: Galatea, tmp_path: Path, talk: tuple[str, ...], tiny_weights: Path, state: str
) -> None:
    shutil.copytree(tiny_weights, tmp_path / "model")
    command = (*talk, "backbone=./model")
    if state == "stopped":
        stop_after(galatea, command)
    else:
        assert galatea(*command).status == 0
    made = tmp_path / "made"
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    for file, words in (
        ("face.png", "portrait (face.png) has other content than when made was begun"),
        ("speech.wav", "audio (speech.wav) has other content than when made was begun"),
        (
            "model/unet/diffusion_pytorch_model.safetensors",
            "backbone.name (model) has other weights than when made",
        ),
        (
            "model/talking/model.safetensors",
            "talking (model.safetensors) has other weights than when made was begun",
        ),
    ):
        path = tmp_path / file
        content = path.read_bytes()
        _exchange(path)
        outcome = galatea(*command)
        assert outcome.status == 2, (file, outcome.err)
        (line,) = outcome.err
        assert words in line
        assert "overwrite=true" in line
        assert before == {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
        path.write_bytes(content)
    outcome = galatea(*command)
    assert outcome.status == 0, outcome.err
    _exchange(tmp_path / "speech.wav")
    assert galatea(*command, "overwrite=true").status == 0


def _exchange(path: Path) -> None:
    """Put another good file of the same kind into its place."""
    if path.suffix == ".png":
        with Image.open(path) as image:
            flipped = image.rotate(90)
        flipped.save(path)
    elif path.suffix == ".wav":
        samples, rate = soundfile.read(path)
        soundfile.write(path, -samples, rate)
    else:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)


def test_prompts_of_another_content_are_refused_in_a_finished_folder(
    galatea: Galatea, tmp_path: Path
) -> None:
    (tmp_path / "captions.txt").write_text("a red ball\n")
    command = ("experiment=benchmark/text_to_3d", "prompts=captions.txt", "budget=smoke", "out=made")
    _as_if_finished(galatea, command, tmp_path / "made")
    assert "finished already" in galatea(*command).err[-1]
    (tmp_path / "captions.txt").write_text("a blue ball\n")
    outcome = galatea(*command)
    assert outcome.status == 2
    assert "prompts (captions.txt) has other content than when made was begun" in outcome.err[-1]


def _as_if_finished(galatea: Galatea, command: tuple[str, ...], made: Path) -> None:
    """Begin a run, stop it before any work, and give it a report."""

    def begin(*_: Any) -> None:
        raise KeyboardInterrupt

    module = tasks.load("benchmark_text_to_3d")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run", begin)
        assert galatea(*command).status == 130
    (made / folders.REPORT).write_text(json.dumps({"artefacts": []}))


@pytest.fixture
def old_run(tmp_path: Path, talk: tuple[str, ...], tiny_weights: Path) -> Path:
    """A run folder whose artefacts and checkpoints are all kinds of inputs: of its report, and of one that has none."""
    made = tmp_path / "made"
    (made / "checkpoints").mkdir(parents=True)
    (made / "checkpoints" / "tiny").symlink_to(tiny_weights)
    (made / "config.yaml").write_text("task: other\n")
    for name in ("face.png", "speech.wav"):
        (tmp_path / name).rename(made / name)
    shutil.copy(tiny_weights / "talking" / "model.safetensors", made / "talking.safetensors")
    (made / "captions.txt").write_text("a red ball\n")
    (made / "report.json").write_text(
        json.dumps({"artefacts": [{"file": name} for name in ("face.png", "captions.txt")]})
    )
    folders.remember(made, artefacts={"speech.wav": "sound", "talking.safetensors": "weights"})
    for name in ("face.png", "speech.wav"):
        shutil.copy(made / name, tmp_path / name)
    (tmp_path / "link.wav").symlink_to(made / "speech.wav")
    (tmp_path / "way").symlink_to(made)
    return made


TALK = ("experiment=talk/quickstart", "face=center")
SPEAK = ("experiment=text_to_talk/quickstart", "prompt=x")
FILES = ("experiment=benchmark/talk_files", "face=center")


@pytest.mark.parametrize(
    "command",
    [
        (*TALK, "portrait=made/face.png", "audio=speech.wav"),
        (*TALK, "portrait=face.png", "audio=link.wav"),
        (*TALK, "portrait=face.png", "audio=way/speech.wav"),
        (*TALK, "portrait=face.png", "audio=speech.wav", "talking=made/../made/talking.safetensors"),
        (*SPEAK, "audio=made/speech.wav"),
        (*SPEAK, "audio=speech.wav", "backbone=made/checkpoints/tiny"),
        (*FILES, "portrait_dir=pictures", "audio_dir=sounds"),
        ("experiment=benchmark/talk", "speech=formants", "measures=made/checkpoints/tiny/talking"),
        ("experiment=benchmark/text_to_3d", "prompts=made/captions.txt"),
        ("experiment=benchmark/tiny", "clip=./made/checkpoints/tiny"),
        ("experiment=sample/multiview", "prompt=x", "backbone=way/checkpoints/tiny"),
        ("experiment=text_to_3d/quickstart", "prompt=x", "backbone=./made/checkpoints/tiny"),
        ("experiment=train/tiny_vae", "continue_from=made/checkpoints/tiny"),
        ("experiment=train/tiny_vae", "model=made/checkpoints/new"),
        ("experiment=train/tiny_mouth", "backbone=./made/checkpoints/tiny", "data.speech=formants"),
        ("experiment=train/tiny_clip", "data_folder=way/checkpoints"),
    ],
    ids=lambda command: f"{command[0].partition('=')[2]} {command[-1].partition('=')[0]}",
)  # fmt: skip
def test_overwriting_never_removes_an_input(
    galatea: Galatea, tmp_path: Path, old_run: Path, command: tuple[str, ...]
) -> None:
    for name, file in (("pictures", "face.png"), ("sounds", "speech.wav")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).symlink_to(old_run / file)
    before = sorted(old_run.rglob("*"))
    outcome = galatea(*command, "budget=smoke", "out=made", "overwrite=true")
    assert outcome.status == 2
    assert len(outcome.err) == 1, outcome.err
    (line,) = outcome.err
    assert "belongs to the run in made, which overwrite=true removes" in line
    assert sorted(path for path in old_run.rglob("*") if path.name != folders.LOCK) == before


def test_an_artefact_that_is_a_link_is_not_removed_from_under_the_run(tmp_path: Path, old_run: Path) -> None:
    (tmp_path / "real.png").write_bytes(b"picture")
    (old_run / "face.png").unlink()
    (old_run / "face.png").symlink_to(tmp_path / "real.png")
    with pytest.raises(UserError, match=r"picture: .*face\.png belongs to the run"):
        inputs.refuse_own(old_run, {"picture": old_run / "face.png"}, {})
    inputs.refuse_own(old_run, {"picture": tmp_path / "real.png"}, {})  # only the link would go
    inputs.refuse_own(old_run, {}, {"data_folder": old_run / "data"})  # overwriting leaves it alone


def test_a_result_does_not_take_the_place_of_an_input(tmp_path: Path) -> None:
    run = Run(tmp_path, config())
    run.reads = {(tmp_path / "talk.mp4").resolve(): "audio"}
    with pytest.raises(UserError, match=r"audio: .*talk\.mp4 is a file that this run would write"):
        run.artefact("talk.mp4", kind="video")
    run.artefact("talk.png", kind="image")
    run.close()
