"""A portrait from a picture file: float32 sRGB in [0, 1], upright, without transparency."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from avatar.picture_kinds import HEAD, HEIC, RAW, PictureKind, is_raw, kind_of

MIN_SIDE = 32
MAX_SIDE = 16_384
MAX_PIXELS = 64_000_000

# Not every format Pillow knows: EPS would start another program.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM")
_READABLE = "PNG, JPEG, WebP, BMP, GIF, TIFF and AVIF can, whatever their name says"
_BACKGROUND = 1.0  # white


class PortraitError(ValueError):
    """A picture file that cannot be used; the message is one line that says what was found and what is needed."""


def load_portrait(path: str | Path) -> Tensor:
    """A picture file as [3, H, W] float32 sRGB in [0, 1].

    The camera's rotation (EXIF) is applied, transparency laid on white, an embedded colour profile converted to
    sRGB, and an animation gives its first frame. 16-bit greyscale keeps its precision. HEIC is read where pi-heif is
    installed.

    Raises:
        PortraitError: the file is missing, a folder, may not be read, holds no picture or a damaged one, or the
            picture is smaller than 32 pixels a side, larger than 16,384 a side or than 64 megapixels. Too large
            pictures are refused before they are decoded.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except FileNotFoundError as error:
        raise PortraitError(f"there is no file {path}; check the name and the folder") from error
    except IsADirectoryError as error:
        raise PortraitError(f"{path} is a folder; name one picture file in it") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise PortraitError(f"{str(path)!r} cannot be opened: {error}") from error
    if not head:
        raise PortraitError(f"{path} is an empty file")
    with warnings.catch_warnings():
        # Pillow warns of large pictures, which are measured here, and of damaged metadata, which is not used.
        warnings.simplefilter("ignore")
        return _load(path, kind_of(head))


def _load(path: Path, kind: PictureKind | None) -> Tensor:
    with _open(path, kind) as image:
        _check_size(path, *image.size)
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
            pixels = _pixels(path, image if upright is None else upright)
        except PortraitError:
            raise
        except Exception as error:  # decoders raise anything at all on damaged files
            reason = " ".join(str(error).split())
            raise PortraitError(
                f"{path} is a damaged {image.format} picture and cannot be decoded ({reason}); "
                "save or download it again"
            ) from error
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _open(path: Path, kind: PictureKind | None) -> Image.Image:
    Image.init()
    heif = ("HEIF",) if kind is HEIC and _can_read_heic() else ()
    known = [name for name in (*_FORMATS, *heif) if name in Image.OPEN]
    try:
        image = Image.open(path, formats=known)
    except Image.DecompressionBombError as error:
        # Pillow refuses twice its own limit before the size can be asked for, but names the number of pixels.
        found = re.search(r"\((\d+) pixels\)", str(error))
        raise _too_large(
            path, f"{int(found[1]) / 1e6:.1f} megapixels" if found else "a huge picture"
        ) from error
    except Exception as error:  # as above: anything
        if heif:
            raise PortraitError(f"{path} is a damaged HEIC picture; save or download it again") from error
        raise _unreadable(path, kind) from error
    if kind is RAW or is_raw(image, path.name):
        image.close()
        raise _unreadable(path, RAW)
    return image


def _can_read_heic() -> bool:
    """Have Pillow read HEIC, where the optional pi-heif is installed."""
    try:
        from pi_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _unreadable(path: Path, kind: PictureKind | None) -> PortraitError:
    if kind is None:
        return PortraitError(f"{path} is no picture that can be read; {_READABLE}")
    return PortraitError(f"{path} is {kind.name}, which cannot be read; {kind.advice}")


def _check_size(path: Path, width: int, height: int) -> None:
    if width < MIN_SIDE or height < MIN_SIDE:
        raise PortraitError(
            f"{path} is too small: {width} x {height} pixels; at least {MIN_SIDE} x {MIN_SIDE} are needed"
        )
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise _too_large(path, f"{width} x {height} pixels")


def _too_large(path: Path, found: str) -> PortraitError:
    return PortraitError(
        f"{path} is too large: {found}; at most {MAX_PIXELS // 1_000_000} megapixels and {MAX_SIDE} pixels a side "
        "are allowed: scale it down first"
    )


def _pixels(path: Path, image: Image.Image) -> np.ndarray:
    """[H, W, 3] float32 in [0, 1] of a decoded picture."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _deep_grey(path, image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"), dtype=np.float32)[..., None] / np.float32(255.0)
        image = image.convert("RGB")
    pixels = np.asarray(_to_srgb(image), dtype=np.float32) / np.float32(255.0)
    return pixels if alpha is None else pixels * alpha + np.float32(_BACKGROUND) * (1.0 - alpha)


def _deep_grey(path: Path, image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" or low < 0 or high > 65_535:
        raise PortraitError(
            f"{path} has samples of 32 bits from {low:g} to {high:g}, whose scale nothing tells; "
            "save it with 8 or 16 bits a channel"
        )
    grey = values.astype(np.float32) / np.float32(65_535.0)
    return np.repeat(grey[..., None], 3, axis=2)


def _to_srgb(image: Image.Image) -> Image.Image:
    """RGB, by the embedded profile where there is a usable one that fits the picture's mode."""
    data = image.info.get("icc_profile")
    if image.mode == "P":
        image = image.convert("RGB")
    if data and image.mode in ("RGB", "CMYK"):
        # A profile that cannot be read says nothing: the plain reading stands, as in browsers.
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
            if "srgb" not in ImageCms.getProfileDescription(profile).lower():
                converted = ImageCms.profileToProfile(
                    image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
                )
                image = image if converted is None else converted
    return image.convert("RGB")
