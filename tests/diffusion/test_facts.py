"""What is told of a backbone before its weights load is what the loaded one says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from diffusion.adapters.camera import CAMERA_DIM
from diffusion.backbone import facts, load, save_backbone
from diffusion.errors import BackboneError
from diffusion.facts import BackboneFacts
from tests.diffusion.models import make_parts
from tests.diffusion.small_sd15 import save_small_sd15

REPO = "models--stable-diffusion-v1-5--stable-diffusion-v1-5"


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 512 pixels."""
    return save_small_sd15(tmp_path_factory.mktemp("facts") / "sd15", sample_size=64)


@pytest.fixture(scope="module")
def multiview(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("facts") / "multiview"
    save_backbone(path, **make_parts(), num_views=4, image_size=64, revision="r1")
    return path


def plain(known: BackboneFacts | None) -> tuple[BackboneFacts, dict[str, object]]:
    assert known is not None
    return replace(known, scheduler=None), dict(known.scheduler.config)


def edit(file: Path, *, without: tuple[str, ...] = (), **entries: object) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in content.items() if k not in without} | entries))


def test_facts_are_those_of_the_loaded_backbone(sd15: Path, multiview: Path) -> None:
    for place in (sd15, multiview, "tiny"):
        before, after = plain(facts(place)), plain(load(place).facts)
        assert vars(before[0]) == vars(after[0])
        assert before[1] == after[1]
    known = facts(sd15)
    assert known is not None
    assert (known.num_views, known.has_camera, known.image_size) == (1, False, 512)
    assert (known.latent_channels, known.downscale, known.revision) == (4, 8, None)


def test_no_weights_are_read(sd15: Path, tmp_path: Path) -> None:
    """Of the weight files only their headers are looked at: zeros in place of numbers change nothing."""
    folder = tmp_path / "model"
    shutil.copytree(sd15, folder)
    for file in folder.rglob("*.safetensors"):
        content = file.read_bytes()
        head = 8 + int.from_bytes(content[:8], "little")
        file.write_bytes(content[:head] + b"\xff" * (len(content) - head))
    assert vars(plain(facts(folder))[0]) == vars(plain(facts(sd15))[0]) | {"name": "model"}
    with pytest.raises(BackboneError, match="NaN"):
        load(folder)


def test_what_a_config_leaves_out_is_its_class_s(sd15: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(sd15, folder)
    edit(
        folder / "unet" / "config.json", without=("class_embed_type", "projection_class_embeddings_input_dim")
    )
    edit(folder / "vae" / "config.json", without=("latent_channels",))
    assert vars(plain(facts(folder))[0]) == vars(plain(facts(sd15))[0]) | {"name": "model"}
    edit(
        folder / "unet" / "config.json",
        class_embed_type="projection",
        projection_class_embeddings_input_dim=CAMERA_DIM,
    )
    known = facts(folder)
    assert known is not None
    assert known.has_camera


def test_what_load_refuses_is_refused(multiview: Path, tmp_path: Path) -> None:
    for place in ("tinny", "./absent"):
        with pytest.raises(BackboneError):
            facts(place)
    with pytest.raises(BackboneError, match="holds revision 'r1', asked for 'r2'"):
        facts(multiview, revision="r2")
    folder = tmp_path / "model"
    shutil.copytree(multiview, folder)
    (folder / "scheduler" / "scheduler_config.json").write_text("{broken")
    with pytest.raises(BackboneError, match=r"scheduler_config\.json cannot be read as JSON"):
        facts(folder)


def test_of_the_hub_only_the_cache_is_asked(
    sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert facts("sd15") is None
    snapshot = tmp_path / REPO / "snapshots" / ("a" * 40)
    shutil.copytree(sd15, snapshot)
    (tmp_path / REPO / "refs").mkdir()
    (tmp_path / REPO / "refs" / "main").write_text("a" * 40)
    known = facts("sd15")
    assert known is not None
    assert (known.name, known.revision, known.image_size, known.num_views) == ("sd15", "a" * 40, 512, 1)
    (snapshot / "unet" / "config.json").unlink()  # a download that was stopped
    assert facts("sd15") is None
