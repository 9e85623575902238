"""The talking benchmark end to end on untrained weights, and its judge on frames whose scores are known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from avatar.mouth import MouthReader
from diffusion.backbone import load
from experiments.benchmark.talk_scores import TalkJudge
from experiments.world.config import TalkingConfig
from experiments.world.talking import make_clip
from video.decode import decode
from video.pixels import from_uint8

BENCHMARK = ("experiment=benchmark/talk", "budget=smoke", "threads=1", "workers=1", "speech=formants")
MODEL = ("talking=talking/model.safetensors", "measures=talking")


@pytest.mark.slow
def test_measures_writes_and_continues(galatea: Callable[..., Any], tmp_path: Path, talking: Path) -> None:
    outcome = galatea(*BENCHMARK, *MODEL, "out=made")
    assert outcome.status == 0, outcome.err
    folder = tmp_path / "made"
    result = json.loads((folder / "talk.json").read_text())
    assert len(result["clips"]) == 2
    assert result["frames_per_second"] > 0
    waiting = result["waiting"]
    assert waiting["reason"] == ""
    assert waiting["frames"] / waiting["seconds"] == pytest.approx(waiting["frames_per_second"], rel=1e-3)
    # Whoever waits waits for the start of the process, too.
    assert 0 < waiting["frames_per_second"] < result["frames_per_second"]
    assert result["controls"]["static"]["sharpness"] == 1.0
    assert result["controls"].keys() == {"oracle", "static", "shuffled"}
    assert result["controls"]["static"]["r"] == 0.0
    assert result["controls"]["oracle"]["static_psnr_db"] == pytest.approx(100.0)
    assert {"r", "in_step", "identity", "static_psnr_db"} <= result["scores"].keys()
    # The second way in: about the face that is found.
    found = result["found"]
    assert found["faces"] == 2
    assert found["clips"] == 1
    assert found["overlap_worst"] > 0.7
    assert {"r", "static_psnr_db"} <= found["scores"].keys() & found["true_face"].keys()
    assert [("found" in clip) for clip in result["clips"]] == [True, False]
    assert all(clip["box_overlap"] >= found["overlap_worst"] for clip in result["clips"])
    text = (folder / "talk.md").read_text()
    for part in (
        "mouth r",
        "found in 2 of 2 portraits",
        "**the face found**, 1 clips",
        "the world's own frames",
        "frames a second",
        "talk/quickstart waits",
        result["adapters"][:16],
    ):
        assert part in text
    assert decode(folder / "clip_00.mp4").frames.shape == (8, 3, 128 + 24, 2 * 128 + 2)

    # As a run that was killed before its last clip leaves it.
    shutil.copytree(folder, tmp_path / "killed")
    made = f"checkpoints/made/{result['adapters'][:16]}/0001.safetensors"
    for name in ("report.json", "talk.json", "talk.md", made):
        (tmp_path / "killed" / name).unlink()
    assert galatea(*BENCHMARK, *MODEL, "out=killed").status == 0
    again = json.loads((tmp_path / "killed" / "talk.json").read_text())
    assert again["scores"] == result["scores"]
    assert again["clips"] == result["clips"]


def test_what_is_refused(galatea: Callable[..., Any], tmp_path: Path, talking: Path) -> None:
    (talking / "mouth.safetensors").unlink()
    for setting, words in (
        ("measures=talking", "no mouth can be read"),
        ("num_clips=0", "num_clips must be at least 1, got 0"),
        ("num_frames=3", "num_frames must be at least 6, got 3"),
        ("num_found=-1", "num_found must not be negative, got -1"),
        ("talking=none.safetensors", "has no talking adapters"),
    ):
        outcome = galatea(*BENCHMARK, *MODEL, setting, "out=made")
        assert outcome.status == 2
        assert words in "\n".join(outcome.err)


@pytest.mark.parametrize("name", ["mouth", "sync"])
def test_damaged_measures_are_one_clear_error(galatea: Callable[..., Any], talking: Path, name: str) -> None:
    file = talking / f"{name}.safetensors"
    whole = file.read_bytes()
    save_file({"foreign": torch.zeros(1)}, talking / "foreign.safetensors")
    for content in (whole[: len(whole) // 2], (talking / "foreign.safetensors").read_bytes()):
        file.write_bytes(content)
        outcome = galatea(*BENCHMARK, *MODEL, "out=made")
        assert outcome.status == 2
        assert f"{name}.safetensors is damaged, or no" in outcome.err[-1]


def test_a_judge_knows_the_truth_from_a_still_portrait() -> None:
    clip = make_clip(
        TalkingConfig(num_clips=1, num_frames=12, size=64, speech="formants", still=1.0, pause=0.0), 1
    )

    class Truthful(MouthReader):
        """Reads from the true frames what the rig says."""

        def forward(self, mouths: torch.Tensor) -> torch.Tensor:
            return clip.aperture

    judge = TalkJudge(reader=Truthful(), sync=None, backbone=load("tiny"))
    scores = judge.score(from_uint8(clip.images), clip, joins=[6])
    assert scores["r"] == pytest.approx(1.0)
    assert scores["error"] == 0.0
    assert scores["in_step"] == 1.0
    assert scores["static_psnr_db"] == pytest.approx(100.0)
    assert scores["identity"] > 0.9
    assert 0.7 < scores["sharpness"] < 1.6  # teeth and open lips are edges that the portrait has not
    blurred = torch.nn.functional.avg_pool2d(from_uint8(clip.images), 3, stride=1, padding=1)
    assert judge.score(blurred, clip)["sharpness"] < 0.5 * scores["sharpness"]
    still = judge.score(from_uint8(clip.portrait).expand(12, -1, -1, -1), clip, track=torch.zeros(12))
    assert still["r"] == 0.0
    assert still["sharpness"] == 1.0
    assert "in_step" not in still  # a mouth that never moves is neither early nor late
    assert still["identity"] == pytest.approx(1.0, abs=1e-4)
