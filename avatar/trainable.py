"""The parameters of a talking model in groups, some of which train while all else stays (see `avatar.lessons`)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from avatar.model import TalkingModel
from diffusion.adapters.reference import reference_layers
from diffusion.adapters.unet_hooks import attention_layers

# group -> what the names of its parameters begin with
GROUPS: dict[str, tuple[str, ...]] = {
    "unet": ("unet.",),
    "reference": ("reference_net.", "reference_projection."),
    "identity": ("identity.",),
    "locator": ("locator.",),
    "sound": ("audio_projection.",),
    "audio": ("audio.",),
    "motion": ("motion.",),
    "speed": ("speed.", "blink."),
}


def parameter_groups(model: TalkingModel) -> dict[str, dict[str, nn.Parameter]]:
    """Group -> name -> parameter, of all that can train.

    "unet" holds what the config's `tune_unet` says; the rest of the UNet belongs to others as well. The
    ReferenceNet's layers behind its last self-attention are left out, because nothing reads what they compute.
    """
    groups: dict[str, dict[str, nn.Parameter]] = {group: {} for group in GROUPS}
    unread = _unread(model)
    for name, parameter in model.named_parameters():
        group = _group_of(name)
        if name.startswith(unread) or (
            group == "unet" and not model.config.tunes(name.removeprefix("unet."))
        ):
            continue
        groups[group][name] = parameter
    return groups


def set_trainable(model: TalkingModel, groups: Iterable[str]) -> dict[str, nn.Parameter]:
    """Lets `groups`, such as those of a lesson, train and freezes all else; returns their parameters by name."""
    wanted = tuple(groups)
    unknown = [group for group in wanted if group not in GROUPS]
    if unknown:
        raise ValueError(f"there is no group {unknown[0]!r}; the groups are {', '.join(GROUPS)}")
    model.requires_grad_(False)
    available = parameter_groups(model)
    chosen = {name: parameter for group in wanted for name, parameter in available[group].items()}
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return chosen


def _group_of(name: str) -> str:
    if name.startswith("motion.") and ".speed." in name:
        return "speed"
    return next(group for group, prefixes in GROUPS.items() if name.startswith(prefixes))


def _unread(model: TalkingModel) -> tuple[str, ...]:
    """Beginnings of names of the ReferenceNet's parameters that no recorded token depends on."""
    if model.reference_net is None:
        return ()
    last = list(attention_layers(model.reference_net))[-1]
    if not last.startswith("up_blocks."):
        return ()
    block = list(reference_layers(model.reference_net))[-1].removesuffix(".attn1")
    parts = [f"{block}.{part}." for part in ("attn1", "attn2", "norm2", "norm3", "ff")]
    parts += [f"{last}.proj_out.", "conv_norm_out.", "conv_out."]
    return tuple(f"reference_net.{part}" for part in parts)
