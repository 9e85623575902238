"""One interface over text encoder, VAE, denoiser, schedule and CLIP towers; every backbone comes through `load`.

Shapes: B objects, V views, C latent channels, h = H / downscale, L text tokens, D width of the CLIP space.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from huggingface_hub import snapshot_download

from diffusion import registry
from diffusion.backbone_folder import Parts, download_patterns, read_facts, read_folder, write_folder
from diffusion.conditioning import Conditioning, Inputs
from diffusion.denoisers.base import Denoiser
from diffusion.denoisers.unet import UNetDenoiser
from diffusion.domains import Domain, check_domains
from diffusion.errors import BackboneError
from diffusion.facts import BackboneFacts, facts_from
from diffusion.finite import NonFiniteError, check_finite, is_finite
from diffusion.schedule import Schedule

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
_WIDE = 1e3  # Latents lie within a few units; far beyond, the sampler and not the UNet is to blame.


class Backbone:
    """A frozen text-to-image or text-to-multiview latent diffusion model.

    Images are float32 [..., 3, H, W] in [0, 1], latents float32 [..., C, h, w] in the UNet's own scale,
    whatever dtype the weights have. Weights do not require gradients, inputs may. NaN or infinity in what a part makes
    raises `NonFiniteError`, which names the part.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        name: str,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        folder: Path | None = None,
    ):
        facts = facts_from(name, parts.index, parts.unet.config, parts.vae.config, parts.scheduler)
        self.name = name
        self.folder = folder  # where it was read from, and where adapters made for it may lie
        self.revision: str | None = revision or facts.revision
        self.tokenizer = parts.tokenizer
        self.scheduler = parts.scheduler
        self.text_encoder: Any = parts.text_encoder.to(device)
        self.vae: AutoencoderKL = parts.vae.to(device)
        self.image_encoder: Any | None = (
            None if parts.image_encoder is None else parts.image_encoder.to(device)
        )
        self.clip_text_encoder: Any | None = (
            None if parts.clip_text_encoder is None else parts.clip_text_encoder.to(device)
        )
        self.device = torch.device(device)
        self.schedule = Schedule.from_scheduler(parts.scheduler).to(self.device)
        vae = parts.vae.config
        self.downscale, self.latent_channels = facts.downscale, facts.latent_channels
        self.num_views, self.image_size = facts.num_views, facts.image_size
        # Views of a single-view backbone are strangers to each other.
        self.domains = facts.domains
        self.denoiser: Denoiser = UNetDenoiser(
            parts.unet.to(device), multiview=self.num_views > 1, domains=self.domains
        )
        self.max_tokens = min(
            self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings
        )
        self._scale = float(vae["scaling_factor"])
        self._shift = float(vae.get("shift_factor") or 0.0)
        self._mean = torch.tensor(parts.image_mean or IMAGE_MEAN, device=device).view(3, 1, 1)
        self._std = torch.tensor(parts.image_std or IMAGE_STD, device=device).view(3, 1, 1)

    @property
    def unet(self) -> UNet2DConditionModel:
        """The UNet itself, for what adapts, trains or writes its weights; BackboneError where the denoiser is none."""
        if not isinstance(self.denoiser, UNetDenoiser):
            raise BackboneError(
                f"the denoiser of backbone {self.name!r} is a {type(self.denoiser).__name__}, and this needs a UNet"
            )
        return self.denoiser.unet

    @property
    def has_camera(self) -> bool:
        """Whether `predict` takes (and then requires) cameras."""
        return "camera" in self.denoiser.takes

    @property
    def facts(self) -> BackboneFacts:
        """What `facts` has told of it before it was loaded."""
        return BackboneFacts(
            name=self.name,
            revision=self.revision,
            num_views=self.num_views,
            image_size=self.image_size,
            downscale=self.downscale,
            latent_channels=self.latent_channels,
            has_camera=self.has_camera,
            domains=self.domains,
            scheduler=self.scheduler,
        )

    def shorten(self, prompt: str, suffix: str = "") -> tuple[str, str]:
        """As much of `prompt` as the text encoder can read with all of `suffix` behind it, and the rest; "" where all
        of it fits. It is cut between words, and within one where not even the first fits as a whole."""

        def fits(end: int) -> bool:
            text = prompt[:end] + suffix
            return len(self.tokenizer(text, verbose=False)["input_ids"]) <= self.max_tokens

        if fits(len(prompt)):
            return prompt, ""
        ends = [word.end() for word in re.finditer(r"\S+", prompt)] or [0]
        if not fits(ends[0]):
            ends = list(range(1, ends[0]))
        count = bisect.bisect_left(ends, True, key=lambda end: not fits(end))
        end = ends[count - 1] if count else 0
        return prompt[:end], prompt[end:]

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str]) -> Conditioning:
        """B prompts (empty ones are fine) -> conditioning of B rows; of a long one, what `shorten` keeps."""
        output = self._encode_text(prompts)
        pooled = output.text_embeds if "text_embeds" in output else output.pooler_output
        embeds = self._finite(output.last_hidden_state, "text encoder")
        return Conditioning(embeds=embeds.float(), pooled=pooled.float())

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images [..., 3, H, W] in [0, 1] -> latents [..., C, h, w], the posterior's mode; differentiable."""
        height, width = images.shape[-2:]
        if images.shape[-3] != 3 or height % self.downscale or width % self.downscale:
            raise ValueError(
                f"images must be [..., 3, H, W] with H and W multiples of {self.downscale}, "
                f"got {list(images.shape)}"
            )
        flat = images.reshape(-1, 3, height, width).to(self.vae.dtype) * 2.0 - 1.0
        latents = self.vae.encode(flat).latent_dist.mode()  # pyright: ignore[reportAttributeAccessIssue]
        latents = self._finite((latents.to(images.dtype) - self._shift) * self._scale, "VAE encoder", images)
        return latents.reshape(*images.shape[:-3], *latents.shape[1:])

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [..., C, h, w] -> images [..., 3, H, W] in [0, 1]; differentiable inside the range."""
        flat = latents.reshape(-1, *latents.shape[-3:]) / self._scale + self._shift
        images = self.vae.decode(flat.to(self.vae.dtype), return_dict=False)[0]  # pyright: ignore[reportArgumentType]
        images = self._finite(images, "VAE decoder", latents)
        images = (images.to(latents.dtype) * 0.5 + 0.5).clamp(0.0, 1.0)
        return images.reshape(*latents.shape[:-3], *images.shape[1:])

    def predict(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor | int,
        conditioning: Conditioning,
        *,
        camera: torch.Tensor | None = None,
        domain: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The denoiser's prediction in its own parameterisation (`schedule` converts), same shape as `latents`.

        Args:
            latents: [B, V, C, h, w], where the views of an object see each other if the backbone is a
                multiview one; or [B, C, h, w], one view each.
            timestep: int, [], [B] or [B, V], long. A view at 0 may be a clean one, which is given.
            conditioning: one row (for all), B rows or B V rows.
            camera: c2w [B, V, 4, 4], or [B, 4, 4] beside [B, C, h, w]; required if and only if `has_camera`.
            domain: long [B, V], or [B]; what each view shows, of `domains`, as `Inputs` says. None is colours.
        """
        inputs = Inputs(conditioning=conditioning, camera=camera, domain=domain)
        return self.denoise(latents, timestep, inputs)

    def denoise(self, latents: torch.Tensor, timestep: torch.Tensor | int, inputs: Inputs) -> torch.Tensor:
        """What `predict` does, for all that the denoiser takes, and called as a `Denoiser` is (so that
        `guidance.predict_together` may ask it); what goes wrong is told in terms of this backbone."""
        if latents.ndim > 2 and latents.shape[-3] != self.denoiser.in_channels:
            raise BackboneError(
                f"the UNet of backbone {self.name!r} takes latents of {self.denoiser.in_channels} channels, "
                f"these have {latents.shape[-3]}, and its VAE makes {self.latent_channels}; if the VAE is a newer one, "
                "train the UNet onto it"
            )
        prediction = self.denoiser(latents, timestep, inputs)
        if not is_finite(prediction):
            greatest = float(latents.detach().abs().max())
            cause = (
                self._remedy()
                if greatest < _WIDE
                else "such latents come from too high a guidance_scale: lower it"
            )
            raise NonFiniteError(
                f"what the UNet of backbone {self.name!r} predicts for latents of up to {greatest:.3g} holds NaN or "
                f"infinity; {cause}"
            )
        return prediction

    def embed_image(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, H, W] in [0, 1] -> unit vectors [B, D] of the CLIP space; differentiable."""
        if self.image_encoder is None:
            raise BackboneError(f"backbone {self.name!r} has no image_encoder, so it cannot embed images")
        size = self.image_encoder.config.image_size
        if tuple(images.shape[-2:]) != (size, size):
            images = F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False)
        pixels = (images.clamp(0.0, 1.0) - self._mean) / self._std
        embeds = self.image_encoder(pixel_values=pixels.to(self.image_encoder.dtype)).image_embeds
        return F.normalize(self._finite(embeds, "image encoder", images).float(), dim=-1)

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """B prompts -> unit vectors [B, D] of the CLIP space.

        By `clip_text_encoder` if there is one: what a UNet reads best need not be what compares best with images.
        """
        output = self._encode_text(prompts, self.clip_text_encoder)
        if "text_embeds" not in output:
            raise BackboneError(
                f"text_encoder of backbone {self.name!r} is a {type(self.text_encoder).__name__}, which "
                "cannot be compared with images; it must be a CLIPTextModelWithProjection, or one must be there as "
                "clip_text_encoder"
            )
        part = "text encoder" if self.clip_text_encoder is None else "CLIP text encoder"
        return F.normalize(self._finite(output.text_embeds, part).float(), dim=-1)

    def image_text_similarity(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Cosine similarities [B, P] of images [B, 3, H, W] in [0, 1] and P prompts."""
        return self.embed_image(images) @ self.embed_text(prompts).T

    def _finite(self, output: torch.Tensor, part: str, given: torch.Tensor | None = None) -> torch.Tensor:
        """`output` of a part as it is; NonFiniteError names the part, or what it was given if the fault lies there."""
        if is_finite(output):
            return output
        if given is not None:
            check_finite(
                given, f"what the {part} of backbone {self.name!r} was given", "look where it comes from"
            )
        return check_finite(output, f"what the {part} of backbone {self.name!r} makes", self._remedy())

    def _remedy(self) -> str:
        dtype = str(self.vae.dtype).removeprefix("torch.")
        narrow = "" if dtype == "float32" else f"dtype {dtype} is too narrow for it (load it as float32), or "
        return f"{narrow}its weights are damaged: fetch or write them again"

    def _encode_text(self, prompts: Sequence[str], encoder: Any | None = None) -> Any:
        if isinstance(prompts, str):
            raise ValueError("prompts must be a list of strings, got one string; write [prompt]")
        if not prompts or any(not isinstance(prompt, str) for prompt in prompts):
            raise ValueError(f"prompts must be a list of one string or more, got {prompts!r}")
        tokens = self.tokenizer(
            [self.shorten(prompt)[0] for prompt in prompts],
            padding="max_length",
            max_length=self.max_tokens,
            truncation=True,
            return_tensors="pt",
        )
        return (encoder or self.text_encoder)(input_ids=tokens["input_ids"].to(self.device))


def load(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    offline: bool = False,
) -> Backbone:
    """Loads a backbone by its registered name or from a folder in diffusers layout.

    Args:
        name_or_path: a name of `registry.names()`, or a folder (./tiny for a folder of that name).
        revision: commit, tag or branch of a hub repository; for a folder, the revision it must say it has.
        dtype: of the weights in memory; files in half precision load as float32 by default.
        offline: use what the hub's cache already holds and nothing else.
    """
    found = _find(name_or_path, revision, offline)
    backbone = Backbone(
        read_folder(found.folder, dtype),
        name=found.name,
        revision=found.revision,
        device=device,
        folder=found.folder,
    )
    _check_revision(found, backbone.revision, revision)
    return backbone


def facts(name_or_path: str | Path, *, revision: str | None = None) -> BackboneFacts | None:
    """What is known of the backbone that `load` would load, from its JSON files alone; None where they are not on this
    machine yet. It never asks the network."""
    try:
        found = _find(name_or_path, revision, offline=True)
        known = read_facts(found.folder, found.name)
    except BackboneError:
        entry = registry.find(str(name_or_path)) if str(name_or_path) in registry.names() else None
        if entry is not None and entry.folder is None:  # not fetched, or not to the end: `load` can mend it
            return None
        raise
    _check_revision(found, known.revision, revision)
    return replace(known, revision=found.revision or known.revision)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """revision: the exact one where it comes from the hub."""

    name: str
    folder: Path
    revision: str | None


def _find(name_or_path: str | Path, revision: str | None, offline: bool) -> _Found:
    name = str(name_or_path)
    if name in registry.names():
        folder, found_revision = _fetch(registry.find(name), revision, offline)
        return _Found(name=name, folder=folder, revision=found_revision)
    if Path(name).is_dir():
        # The name gets into reports, and where the folder lies is private.
        return _Found(name=Path(name).resolve().name, folder=Path(name), revision=None)
    if Path(name).exists() or "/" in name or "\\" in name:
        raise BackboneError(
            f"{name} is not a folder; give a folder in diffusers layout or one of "
            f"{', '.join(registry.names())}"
        )
    registry.find(name)
    raise AssertionError("registry.find raises for an unknown name")


def _check_revision(found: _Found, holds: str | None, asked: str | None) -> None:
    if asked is not None and found.revision is None and holds != asked:
        raise BackboneError(
            f"{found.folder} holds revision {holds!r}, asked for {asked!r}; leave revision out"
        )


def save_backbone(
    folder: str | Path,
    *,
    tokenizer: Any | None = None,
    text_encoder: Any | None = None,
    image_encoder: Any | None = None,
    clip_text_encoder: Any | None = None,
    vae: Any | None = None,
    unet: Any | None = None,
    scheduler: Any | None = None,
    num_views: int | None = None,
    image_size: int | None = None,
    domains: Sequence[Domain] | None = None,
    revision: str | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Writes a backbone folder, or replaces the given parts and settings of one; each part atomically.

    domains: what the UNet's views can show; a folder that says nothing is of one that shows colours.

    The modules passed in are left as they are; on disk the weights have `dtype`.
    """
    parts = {
        "tokenizer": tokenizer,
        "text_encoder": text_encoder,
        "image_encoder": image_encoder,
        "clip_text_encoder": clip_text_encoder,
        "vae": vae,
        "unet": unet,
        "scheduler": scheduler,
    }
    if domains is not None:
        check_domains(domains)
    settings = {
        "num_views": num_views,
        "image_size": image_size,
        "domains": None if domains is None else list(domains),
        "revision": revision,
    }
    if tokenizer is not None and text_encoder is not None:
        expected, got = tokenizer.eos_token_id, text_encoder.config.eos_token_id
        # 2 is what OpenAI's configs say; transformers then takes the greatest token id for the end instead.
        if expected != got and not (got == 2 and expected == len(tokenizer) - 1):
            raise BackboneError(
                f"text_encoder.config.eos_token_id is {got}, but the tokenizer's is {expected}: "
                "pooled text would be wrong"
            )
    write_folder(
        Path(folder),
        {part: value for part, value in parts.items() if value is not None},
        {key: value for key, value in settings.items() if value is not None},
        dtype,
    )


def _fetch(entry: registry.Entry, revision: str | None, offline: bool) -> tuple[Path, str | None]:
    """Folder of a registered backbone, and the exact revision when it comes from the hub."""
    if entry.folder is not None:
        return entry.folder, None
    problem: Exception | None = None
    for repo in entry.repos:
        # A pinned revision names a commit of the first repository; a fallback is another history.
        wanted = revision or (entry.revision if repo == entry.repos[0] else None)
        try:
            path = Path(
                snapshot_download(
                    repo,
                    revision=wanted,
                    allow_patterns=download_patterns(entry.variant),
                    local_files_only=offline,
                )
            )
        except Exception as error:  # errors of the hub, of HTTP and of the disk have no common base
            problem = problem or error
            continue
        return path, path.name
    at = f" at revision {revision!r}" if revision else ""
    how = "offline=True and the hub's cache does not hold it" if offline else f"{type(problem).__name__}"
    raise BackboneError(
        f"backbone {entry.name!r}{at} is not on this machine and could not be fetched ({how}); run once with "
        f"a network (it comes from {entry.repos[0]}), or give a folder that holds it in diffusers layout, "
        "or use 'tiny'"
    ) from problem
