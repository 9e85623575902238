"""The two sizes, and Hallo's shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from avatar.config import SD15, TINY, Config
from avatar.model import TalkingModel
from avatar.trainable import parameter_groups
from diffusion.backbone import load

MILLION = 1e6


@pytest.fixture(scope="module")
def sd15() -> TalkingModel:
    with torch.device("meta"):
        return TalkingModel(UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8), SD15)


def size(module: nn.Module | None) -> float:
    assert module is not None
    return sum(parameter.numel() for parameter in module.parameters()) / MILLION


def shape(module: nn.Module, name: str) -> tuple[int, ...]:
    return tuple(module.get_parameter(name).shape)


def test_sizes_of_hallo(sd15: TalkingModel) -> None:
    """Counts of Hallo's published checkpoint, part by part."""
    assert size(sd15.unet) == pytest.approx(859.5, abs=0.1)
    assert size(sd15.reference_net) == pytest.approx(859.5, abs=0.1)
    assert size(sd15.audio) == pytest.approx(212.8, abs=0.1)
    # Its five modules behind blocks without attention never run and are not built here: 22 C^2 + 28 C each.
    unused = 5 * (22 * 1280**2 + 28 * 1280) / MILLION
    assert size(sd15.motion) + unused == pytest.approx(453.2, abs=0.1)
    assert len(sd15.audio) == len(sd15.motion) == 16


def test_names_and_shapes_of_hallo(sd15: TalkingModel) -> None:
    counts = {
        "locator": 16,
        "identity": 4,
        "audio_projection": 8,
        "audio": 16 * 42,
        "motion": 16 * (28 - 2),  # without the two tables of positions, which are computed
        "unet": 686,
    }
    state = sd15.state_dict()
    for part, count in counts.items():
        assert sum(name.startswith(f"{part}.") for name in state) == count, part
    assert shape(sd15.audio_projection, "proj1.weight") == (512, 46080)
    assert shape(sd15.audio_projection, "proj3.weight") == (32 * 768, 512)
    assert shape(sd15.identity, "proj.weight") == (4 * 768, 512)
    assert shape(sd15.locator, "conv_in.weight") == (16, 3, 3, 3)
    assert shape(sd15.locator, "conv_out.weight") == (320, 128, 3, 3)
    assert shape(sd15.audio, "down_blocks_0_attentions_0.attn2.face.to_k.weight") == (320, 768)
    assert shape(sd15.motion, "mid_block_attentions_0.ff.net.0.proj.weight") == (8 * 1280, 1280)


def test_inner_widths_of_hallo(sd15: TalkingModel) -> None:
    """The audio modules take the width that comes into their block: down.1.0 is 640 -> 320, and so on."""
    narrowed = {
        name: shape(sd15.audio, f"{name}.proj_in.weight")[:2]
        for name in sd15.audio
        if len(set(shape(sd15.audio, f"{name}.proj_in.weight")[:2])) == 2
    }
    up = {f"up_blocks_1_attentions_{layer}": (640, 1280) for layer in range(3)}
    up |= {f"up_blocks_2_attentions_{layer}": (320, 640) for layer in range(3)}
    assert narrowed == {
        "down_blocks_1_attentions_0": (320, 640),
        "down_blocks_2_attentions_0": (640, 1280),
        **up,
    }


def test_tiny_stays_small(tiny_weights: Path) -> None:
    """3 to 6 M parameters beside the shared UNet."""
    model = TalkingModel(load(str(tiny_weights)).unet, TINY)
    groups = parameter_groups(model)
    total = sum(p.numel() for group in groups.values() for p in group.values()) / MILLION
    assert 3.0 < total < 6.0
    assert not groups["unet"]


@pytest.mark.parametrize("config", [TINY, SD15])
def test_a_config_survives_json(config: Config) -> None:
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_bad_configs() -> None:
    with pytest.raises(ValueError, match=r"config\.motion has no key 'head'; its keys are attentions, "):
        Config.from_dict({"motion": {"head": 3}})
    with pytest.raises(ValueError, match=r"config\.audio must be a mapping, got int"):
        Config.from_dict({"audio": 3})
    with pytest.raises(ValueError, match="reference_net must be 'shared' or 'copy', got 'none'"):
        Config.from_dict({"reference_net": "none"})
    with pytest.raises(ValueError, match="reference_expansion must not be negative"):
        Config(reference_expansion=-1.0)
