"""Random backbones, written and read through the public door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffusion.backbone import Backbone, load, save_backbone
from tests.diffusion.models import make_parts


@pytest.fixture(scope="session")
def parts() -> dict[str, Any]:
    return make_parts()


@pytest.fixture(scope="session")
def folder(parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "model"
    save_backbone(path, **parts, num_views=4, image_size=64, revision="r1")
    return path


@pytest.fixture(scope="session")
def backbone(folder: Path) -> Backbone:
    return load(folder)


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A single-view model as Stable Diffusion is: no camera, no settings, no projection, no image tower."""
    path = tmp_path_factory.mktemp("single") / "model"
    parts = make_parts(camera=False, projection=False)
    parts.pop("image_encoder")
    save_backbone(path, **parts)
    return load(path)
