"""A talking model's own weights in one safetensors file, beside the UNet's, which is not written again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import SafetensorError, safe_open

from avatar.config import Config
from avatar.model import TalkingModel
from diffusion.files import save_tensors
from diffusion.finite import non_finite_name

_FORMAT = "galatea-talking-1"


def adapter_state(model: TalkingModel) -> dict[str, torch.Tensor]:
    """All weights but those of the UNet that are the backbone's own."""
    return {
        name: value
        for name, value in model.state_dict().items()
        if not name.startswith("unet.") or model.config.tunes(name.removeprefix("unet."))
    }


def save_adapters(path: str | Path, model: TalkingModel, *, dtype: torch.dtype = torch.float16) -> None:
    """Writes the adapters and their config; the file appears whole or not at all. `model` is not changed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: value.detach().to("cpu", dtype).contiguous() for name, value in adapter_state(model).items()
    }
    metadata = {
        "format": _FORMAT,
        "config": json.dumps(model.config.to_dict()),
        "unet": "" if model.config.tune_unet == "all" else fingerprint(model.unet),
    }
    save_tensors(path, tensors, metadata)


def load_adapters(path: str | Path, unet: UNet2DConditionModel, *, any_weights: bool = False) -> TalkingModel:
    """The talking model of a file on the UNet it was trained with; frozen, in eval mode, on the UNet's device.

    any_weights: take a UNet of the same shapes with other weights too, as a start for training.

    Raises:
        ValueError: when the file is damaged or foreign, or the UNet is another one than it was trained on.
    """
    path = Path(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as safetensors ({error}); write or fetch it again"
        ) from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(
            f"{path} holds no talking model (format {metadata.get('format')!r}, not {_FORMAT!r})"
        )
    try:
        config = Config.from_dict(json.loads(metadata["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has no readable config ({error}); write it again") from error
    if not any_weights and metadata.get("unet") and metadata["unet"] != fingerprint(unet):
        raise ValueError(
            f"{path} was trained on another UNet (it wants {metadata['unet']}, this one is {fingerprint(unet)}); "
            "load the backbone that it belongs to"
        )
    model = TalkingModel(unet, config)
    wanted = adapter_state(model)
    absent, foreign = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if absent or foreign:
        name = (absent or foreign)[0]
        raise ValueError(
            f"{path} does not fit its config: {len(absent)} tensors are missing and {len(foreign)} unknown, "
            f"such as {name}"
        )
    wrong = [name for name, value in wanted.items() if value.shape != tensors[name].shape]
    if wrong:
        shapes = list(tensors[wrong[0]].shape), list(wanted[wrong[0]].shape)
        raise ValueError(f"{path} does not fit this UNet: {wrong[0]} is {shapes[0]}, must be {shapes[1]}")
    damaged = non_finite_name(tensors)
    if damaged is not None:
        raise ValueError(f"{path}: tensor {damaged} holds NaN or infinity; fetch or train it again")
    model.load_state_dict(tensors, strict=False)
    return model.to(unet.device, unet.dtype).eval().requires_grad_(False)


def fingerprint(unet: UNet2DConditionModel) -> str:
    """Short name of a UNet's weights, the same in float32, float16 and bfloat16 copies of a file in float16.

    Its first and last convolutions stand for all of it: any further training changes them.
    """
    digest = hashlib.sha256()
    for name in ("conv_in.weight", "conv_out.weight"):
        # bfloat16 is the coarsest of the three; numpy does not know it, so its bits are read as integers.
        value = unet.get_parameter(name).detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(value.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]
