"""What is known of a backbone from its JSON files alone, before minutes of downloads or seconds of loading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusion.adapters.camera import reads_cameras
from diffusion.domains import DOMAINS, Domain
from diffusion.errors import BackboneError


@dataclass(frozen=True, kw_only=True, eq=False)
class BackboneFacts:
    """num_views: of an object, that the backbone makes together; 1 for a text-to-image model. image_size: of its
    pictures, in pixels; latents have `latent_channels` channels and a `downscale`-th of the pixels along an edge.

    revision: the hub's, or what its folder says. has_camera: whether it takes cameras, and then requires them.
    domains: what its views can show. scheduler: a diffusers scheduler with its noise levels, never stepped itself.
    """

    name: str
    revision: str | None
    num_views: int
    image_size: int
    downscale: int
    latent_channels: int
    has_camera: bool
    domains: tuple[Domain, ...] = ("color",)
    scheduler: Any


def facts_from(
    name: str, index: Mapping[str, Any], unet: Mapping[str, Any], vae: Mapping[str, Any], scheduler: Any
) -> BackboneFacts:
    """The facts of a backbone by its model_index.json and by the configs of its UNet and its VAE, defaults included."""
    settings = index.get("galatea", {})
    downscale = 2 ** (len(vae["block_out_channels"]) - 1)
    default_size = int(unet["sample_size"] or 64) * downscale
    return BackboneFacts(
        name=name,
        revision=settings.get("revision"),
        num_views=_positive(settings.get("num_views", 1), "num_views"),
        image_size=_positive(settings.get("image_size", default_size), "image_size"),
        downscale=downscale,
        latent_channels=int(vae["latent_channels"]),
        has_camera=reads_cameras(unet),
        domains=_domains(settings.get("domains", ["color"]), reads_cameras(unet)),
        scheduler=scheduler,
    )


def _positive(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BackboneError(f"{name} in model_index.json must be a whole number of at least 1, got {value!r}")
    return value


def _domains(value: Any, has_camera: bool) -> tuple[Domain, ...]:
    """Those that model_index.json names, in the order of `DOMAINS`."""
    if not isinstance(value, list) or "color" not in value or any(name not in DOMAINS for name in value):
        raise BackboneError(
            f"domains in model_index.json must be a list of 'color' and any of {', '.join(DOMAINS[1:])}, got {value!r}"
        )
    if len(value) > 1 and not has_camera:
        raise BackboneError(
            f"domains in model_index.json are {value!r}, but its UNet has no camera embedding to tell it which"
        )
    return tuple(domain for domain in DOMAINS if domain in value)
