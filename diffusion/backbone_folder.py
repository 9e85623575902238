"""The folder of a backbone: diffusers' layout, safetensors only.

    model_index.json     {"unet": ["diffusers", "UNet2DConditionModel"], ...,
                          "galatea": {"num_views": 4, "image_size": 128, "domains": ["color"], "revision": "..."}}
    tokenizer/           CLIPTokenizer: tokenizer.json, or vocab.json and merges.txt
    text_encoder/        CLIPTextModel or CLIPTextModelWithProjection
    image_encoder/       CLIPVisionModelWithProjection (optional)
    clip_text_encoder/   CLIPTextModelWithProjection (optional): the image tower's partner where text_encoder is not
    vae/ unet/           AutoencoderKL, UNet2DConditionModel
    scheduler/           scheduler_config.json

The `galatea` block may be absent, as in a public Stable Diffusion folder. Large weights may lie in several
files, shards, with a `*.safetensors.index.json` that says which tensor is where.
"""

from __future__ import annotations

import copy
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)
from transformers.utils import logging as transformers_logging

from diffusion.errors import BackboneError
from diffusion.facts import BackboneFacts, facts_from
from diffusion.files import as_os_error
from diffusion.finite import non_finite_name
from diffusion.kinds import refuse_other_kinds
from files.atomic import write_bytes, write_error

MODEL_INDEX = "model_index.json"

# part -> (library, stem of its weight files, classes that may fill it; the first where the index names none)
_MODELS: dict[str, tuple[str, str, tuple[type[Any], ...]]] = {
    "text_encoder": ("transformers", "model", (CLIPTextModel, CLIPTextModelWithProjection)),
    "image_encoder": ("transformers", "model", (CLIPVisionModelWithProjection,)),
    "clip_text_encoder": ("transformers", "model", (CLIPTextModelWithProjection,)),
    "vae": ("diffusers", "diffusion_pytorch_model", (AutoencoderKL,)),
    "unet": ("diffusers", "diffusion_pytorch_model", (UNet2DConditionModel,)),
}
_OPTIONAL = ("image_encoder", "clip_text_encoder")
_VARIANTS = (None, "fp16")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a folder holds: model_index.json, components, and the image tower's constants if written."""

    index: dict[str, Any]
    tokenizer: Any
    text_encoder: Any
    vae: Any
    unet: Any
    scheduler: Any
    image_encoder: Any | None
    clip_text_encoder: Any | None = None
    image_mean: tuple[float, ...] | None
    image_std: tuple[float, ...] | None


def download_patterns(variant: str | None) -> list[str]:
    """The files of a hub repository that `read_folder` needs, and no others."""
    patterns = [MODEL_INDEX, "tokenizer/*", "scheduler/scheduler_config.json", "feature_extractor/*.json"]
    for part, (_, stem, _) in _MODELS.items():
        patterns += [f"{part}/*.json", f"{part}/{_weights_name(stem, variant)}"]
        patterns.append(
            f"{part}/{_weights_name(stem, variant).replace('.safetensors', '-*-of-*.safetensors')}"
        )
    return patterns


def files_of(folder: Path) -> list[Path]:
    """The files that `read_folder` reads: what decides what the backbone does."""
    found = [
        folder / MODEL_INDEX,
        *(folder / "tokenizer").glob("*"),
        folder / "scheduler" / "scheduler_config.json",
    ]
    found += (folder / "feature_extractor").glob("*.json")
    for part, (_, stem, _) in _MODELS.items():
        weights = _find_weights(folder / part, stem)
        found += [*(folder / part).glob("*.json"), *(weights.files if weights else [])]
    return sorted(file for file in found if file.is_file())


def read_facts(folder: Path, name: str) -> BackboneFacts:
    """What the JSON files say of a backbone; BackboneError when something is missing, damaged or foreign."""
    index = _check_folder(folder)
    unet, vae = (_config_of(folder, part, index) for part in ("unet", "vae"))
    return facts_from(name, index, unet, vae, _read_scheduler(folder))


def read_folder(folder: Path, dtype: torch.dtype) -> Parts:
    """Loads every part of a backbone; BackboneError when something is missing, damaged or foreign."""
    index = _check_folder(folder)
    with _quiet():
        models = {
            part: _load_model(folder, part, index, dtype)
            for part in _MODELS
            if part not in _OPTIONAL or (folder / part / "config.json").is_file()
        }
        try:
            tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
        except Exception as error:  # the library raises whatever its parsers do
            raise BackboneError(f"tokenizer in {folder} cannot be read: {_first_line(error)}") from error
        scheduler = _read_scheduler(folder)
    text_encoder = models["text_encoder"]
    if len(tokenizer) > text_encoder.config.vocab_size:
        raise BackboneError(
            f"tokenizer in {folder} has {len(tokenizer)} entries, but text_encoder only "
            f"{text_encoder.config.vocab_size}: they do not belong together"
        )
    mean, std = _image_constants(folder)
    return Parts(
        index=index,
        tokenizer=tokenizer,
        scheduler=scheduler,
        text_encoder=text_encoder,
        vae=models["vae"],
        unet=models["unet"],
        image_encoder=models.get("image_encoder"),
        clip_text_encoder=models.get("clip_text_encoder"),
        image_mean=mean,
        image_std=std,
    )


def write_folder(
    folder: Path, parts: dict[str, Any], settings: dict[str, Any], dtype: torch.dtype = torch.float16
) -> None:
    """Writes or replaces the given parts, each complete in a temporary folder before it takes its place.

    Args:
        parts: any of tokenizer, text_encoder, image_encoder, clip_text_encoder, vae, unet, scheduler; unchanged.
        settings: entries of the `galatea` block to set; others are kept.
        dtype: of the weights on disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index_file = folder / MODEL_INDEX
    index: dict[str, Any] = _read_json(index_file) if index_file.is_file() else {"_class_name": "Backbone"}
    for part, value in parts.items():
        temporary = Path(tempfile.mkdtemp(prefix=f".{part}-", dir=folder))
        try:
            _save_part(value, temporary, dtype)
            _replace_folder(temporary, folder / part)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)  # the room it takes may be what is missing
            raise _write_error(error, folder / part, value, dtype) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        library = (
            _MODELS[part][0] if part in _MODELS else "diffusers" if part == "scheduler" else "transformers"
        )
        index[part] = [library, type(value).__name__]
    index["galatea"] = {**index.get("galatea", {}), **settings}
    write_bytes(index_file, (json.dumps(index, indent=2) + "\n").encode())


def _write_error(error: Exception, path: Path, part: Any, dtype: torch.dtype) -> Exception:
    """The error of writing a part, with its folder named."""
    found = as_os_error(error)
    if not isinstance(found, OSError):
        return found
    numbers = (
        sum(value.numel() for value in part.state_dict().values()) if isinstance(part, torch.nn.Module) else 0
    )
    return write_error(found, path, f"over {numbers * dtype.itemsize:,} bytes")


def _save_part(value: Any, folder: Path, dtype: torch.dtype) -> None:
    if not isinstance(value, torch.nn.Module):
        value.save_pretrained(str(folder))
        return
    # A copy, because .to() would turn the caller's own module, perhaps in training, into halves.
    with _quiet():
        module: Any = copy.deepcopy(value).to("cpu", dtype)
        module.save_pretrained(str(folder), safe_serialization=True)
    config = _read_json(folder / "config.json")
    if config.pop("_name_or_path", None) is not None:  # the folder it came from is nobody's business
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _replace_folder(source: Path, target: Path) -> None:
    source.chmod(0o755)  # mkdtemp makes private folders; a packaged model is for everyone
    if not target.exists():
        os.replace(source, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    os.replace(target, old)
    os.replace(source, target)
    shutil.rmtree(old)


def _check_folder(folder: Path) -> dict[str, Any]:
    """Names everything that is missing at once, then reads the header of every weight file."""
    missing = [] if (folder / MODEL_INDEX).is_file() else [MODEL_INDEX]
    index: dict[str, Any] = {} if missing else _read_object(folder / MODEL_INDEX)
    if not isinstance(index.get("galatea", {}), dict):
        raise BackboneError(f"{folder / MODEL_INDEX}: its 'galatea' entry must be a JSON object")
    parts = {part: folder / part / "config.json" for part in _MODELS}
    configs = {part: _read_object(file) for part, file in parts.items() if file.is_file()}
    refuse_other_kinds(folder, index, configs)
    for part in configs:
        _class_of(folder, part, index)
    tokenizer = folder / "tokenizer"
    pair = (tokenizer / "vocab.json").is_file() and (tokenizer / "merges.txt").is_file()
    if not pair and not (tokenizer / "tokenizer.json").is_file():
        missing.append("tokenizer/tokenizer.json (or vocab.json and merges.txt)")
    if not (folder / "scheduler" / "scheduler_config.json").is_file():
        missing.append("scheduler/scheduler_config.json")
    weights: list[Path] = []
    for part, (_, stem, _) in _MODELS.items():
        if part in _OPTIONAL and not (folder / part).exists():
            continue
        if not (folder / part / "config.json").is_file():
            missing.append(f"{part}/config.json")
        found = _find_weights(folder / part, stem)
        if found is None:
            pickled = any((folder / part).glob("*.bin")) or any((folder / part).glob("*.ckpt"))
            hint = " (only pickled weights are there: convert them to safetensors)" if pickled else ""
            missing.append(f"{part}/{_weights_name(stem, None)}{hint}")
        else:
            missing += [f"{part}/{file.name}" for file in found.files if not file.is_file()]
            weights += found.files
    if missing:
        raise BackboneError(f"{folder} is no backbone in diffusers layout; missing: {', '.join(missing)}")
    for file in weights:
        try:
            with safe_open(str(file), framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise BackboneError(
                f"{file} is damaged or cut short ({_first_line(error)}); fetch or write it again"
            ) from error
    return index


def _class_of(folder: Path, part: str, index: dict[str, Any]) -> Any:
    """The class that the index names for a part; BackboneError for one that cannot fill it."""
    library, _, classes = _MODELS[part]
    entry = index.get(part) or [library, classes[0].__name__]
    name = entry[-1] if isinstance(entry, list) and entry else str(entry)
    by_name = {cls.__name__: cls for cls in classes}
    if name not in by_name:
        raise BackboneError(f"{part} in {folder} is a {name}, allowed: {', '.join(by_name)}")
    return by_name[name]


def _config_of(folder: Path, part: str, index: dict[str, Any]) -> Mapping[str, Any]:
    """The config.json of a diffusers part, with the defaults of its class for what it leaves out."""
    parameters = inspect.signature(_class_of(folder, part, index).__init__).parameters
    return {name: each.default for name, each in parameters.items()} | _read_object(
        folder / part / "config.json"
    )


def _load_model(folder: Path, part: str, index: dict[str, Any], dtype: torch.dtype) -> Any:
    library, stem, _ = _MODELS[part]
    cls = _class_of(folder, part, index)
    weights = _find_weights(folder / part, stem)
    assert weights is not None, "the folder was checked"
    options: dict[str, Any] = {"dtype" if library == "transformers" else "torch_dtype": dtype}
    if weights.variant:
        options["variant"] = weights.variant
    try:
        model, info = cls.from_pretrained(
            str(folder / part),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # the two libraries raise whatever their parsers do
        raise BackboneError(f"{part} in {folder} cannot be loaded: {_first_line(error)}") from error
    absent = sorted(str(key) for key in info["missing_keys"])
    if absent:
        raise BackboneError(
            f"{folder / part / _weights_name(stem, weights.variant)} does not fit its config.json: "
            f"{len(absent)} tensors are missing, such as {absent[0]}"
        )
    damaged = non_finite_name(model.state_dict())
    if damaged is not None:
        remedy = (
            "fetch or write it again" if dtype != torch.float16 else "load it as float32, or fetch it again"
        )
        raise BackboneError(
            f"{folder / part / _weights_name(stem, weights.variant)}: tensor {damaged} holds NaN or infinity as "
            f"{str(dtype).removeprefix('torch.')}; {remedy}"
        )
    return model.eval().requires_grad_(False)


def _read_scheduler(folder: Path) -> Any:
    config = _read_object(folder / "scheduler" / "scheduler_config.json")
    flow = str(config.get("_class_name", "")).startswith("FlowMatch")
    # Only noise levels and parameterisation are taken from it, so one class stands for all of DDPM's kind.
    cls: Any = FlowMatchEulerDiscreteScheduler if flow else DDIMScheduler
    with _quiet():
        try:
            return cls.from_config({key: value for key, value in config.items() if not key.startswith("_")})
        except Exception as error:  # the library raises whatever its parsers do
            raise BackboneError(f"scheduler in {folder} cannot be read: {_first_line(error)}") from error


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """The weights of a part. files: one, or the shards that its index names, which need not be there."""

    variant: str | None
    files: list[Path]


def _find_weights(folder: Path, stem: str) -> _Weights | None:
    """The weights in a part's folder, plain before half precision, and whole before sharded; None when none are."""
    for variant in _VARIANTS:
        file = folder / _weights_name(stem, variant)
        if file.is_file():
            return _Weights(variant=variant, files=[file])
        index = folder / f"{stem}.safetensors.index{f'.{variant}' if variant else ''}.json"
        if index.is_file():
            return _Weights(variant=variant, files=_shards(index))
    return None


def _shards(index: Path) -> list[Path]:
    """The files that an index of shards names."""
    content = _read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    names = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
    if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise BackboneError(
            f"{index} must have a 'weight_map' that names safetensors files beside it, tensor by tensor; fetch it again"
        )
    return [index.parent / name for name in names]


def _weights_name(stem: str, variant: str | None) -> str:
    return f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"


def _image_constants(folder: Path) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    for place in (folder / "image_encoder", folder / "feature_extractor"):
        file = place / "preprocessor_config.json"
        if file.is_file():
            config = _read_json(file)
            mean, std = config.get("image_mean"), config.get("image_std")
            return (tuple(mean) if mean else None), (tuple(std) if std else None)
    return None, None


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(f"{file} cannot be read as JSON: {_first_line(error)}") from error


def _read_object(file: Path) -> dict[str, Any]:
    content = _read_json(file)
    if not isinstance(content, dict):
        raise BackboneError(f"{file} must hold a JSON object")
    return content


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, no load reports: what they say is checked and raised here."""
    levels = transformers_logging.get_verbosity(), diffusers_logging.get_verbosity()
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    diffusers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(levels[0])
        diffusers_logging.set_verbosity(levels[1])
        if bar:
            transformers_logging.enable_progress_bar()
