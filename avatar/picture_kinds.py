"""What a file is that is no picture Pillow reads: told by its first bytes, with how to make a picture of it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

HEAD = 4096
"""As many of a file's first bytes are looked at."""

_SAVE = "save it as JPEG or PNG"
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_DNG_VERSION, _CAMERA_PATTERN, _SUB_IMAGES, _SMALLER, _MAKER = 50_706, 33_421, 330, 254, 271
_RAW_NAMES = (
    ".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".nef", ".nrw", ".pef", ".sr2",
    ".srw",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PictureKind:
    """name: of the format, with an article. advice: how to get a picture from it."""

    name: str
    advice: str


HEIC = PictureKind(
    "a HEIC picture (HEIF)",
    f"install pi-heif (the extra 'heic') and it is read, or {_SAVE}",
)
RAW = PictureKind(
    "a camera's raw file", "develop it to JPEG or PNG with the camera's software, darktable or RawTherapee"
)
_AVIF = PictureKind("an AVIF picture", f"update Pillow, whose version here cannot read it, or {_SAVE}")
_VIDEO = PictureKind("a video", "save one frame of it as PNG: ffmpeg -i FILE -frames:v 1 face.png")
_SOUND = PictureKind("a sound file", "name a picture here")
_PAGE = PictureKind("a web page", "download the picture that it shows")
_SVG = PictureKind("an SVG drawing", "export it as PNG: rsvg-convert FILE -o face.png, or Inkscape")

# First bytes; those of containers are looked into by `kind_of`.
_SIGNATURES = (
    (b"\xff\x0a", PictureKind("a JPEG XL picture", f"{_SAVE}: djxl FILE face.png")),
    (b"\x00\x00\x00\x0cJXL ", PictureKind("a JPEG XL picture", f"{_SAVE}: djxl FILE face.png")),
    (b"\x00\x00\x00\x0cjP  ", PictureKind("a JPEG 2000 picture", _SAVE)),
    (b"%PDF", PictureKind("a PDF document", "save a page as PNG: pdftoppm -png -singlefile FILE face")),
    (b"%!PS", PictureKind("a PostScript document", _SAVE)),
    (b"8BPS", PictureKind("a Photoshop document", _SAVE)),
    (b"gimp xcf", PictureKind("a GIMP document", "export it as PNG")),
    (b"v/1\x01", PictureKind("an OpenEXR picture", _SAVE)),
    (b"#?RADIANCE", PictureKind("a Radiance HDR picture", _SAVE)),
    (b"\x00\x00\x01\x00", PictureKind("an icon", _SAVE)),
    (b"FUJIFILMCCD-RAW", RAW), (b"IIU\x00", RAW), (b"IIRO", RAW), (b"IIRS", RAW), (b"MMOR", RAW), (b"\x00MRM", RAW),
    (b"FOVb", RAW),
    (b"\x1aE\xdf\xa3", _VIDEO), (b"FLV\x01", _VIDEO), (b"\x00\x00\x01\xba", _VIDEO), (b"\x00\x00\x01\xb3", _VIDEO),
    (b"0&\xb2u\x8ef\xcf\x11", _VIDEO),
    (b"ID3", _SOUND), (b"fLaC", _SOUND), (b"OggS", _SOUND), (b"\xff\xfb", _SOUND), (b"\xff\xf3", _SOUND),
    (b"glTF", PictureKind("a 3D model", "name a picture here")),
    (b"PK\x03\x04", PictureKind("a ZIP archive", "unpack it")),
    (b"version https://git-lfs", PictureKind("a pointer of Git LFS", "fetch the file itself: git lfs pull")),
)  # fmt: skip


def kind_of(head: bytes) -> PictureKind | None:
    """What a file with these first bytes (`HEAD` of them are enough) is; None if they tell nothing."""
    for start, kind in _SIGNATURES:
        if head.startswith(start):
            return kind
    if head[:4] in (b"II*\x00", b"MM\x00*") and head[8:10] == b"CR":
        return RAW
    if head[:4] == b"RIFF":
        return {b"WAVE": _SOUND, b"AVI ": _VIDEO}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    words = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if words.startswith((b"<!doctype html", b"<html")):
        return _PAGE
    return _SVG if words.startswith((b"<svg", b"<?xml", b"<!--")) and b"<svg" in words else None


def _of_brands(head: bytes) -> PictureKind:
    """Of a file of the family that MP4 began (ISO 14496-12), by the brands in its first box."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[i : i + 4] for i in range(16, end, 4))}
    if brands & {b"avif", b"avis"}:
        return _AVIF
    if b"crx " in brands:
        return RAW
    if brands & _HEIC:
        return HEIC
    return _SOUND if head[8:11] == b"M4A" else _VIDEO


def is_raw(image: Image.Image, name: str) -> bool:
    """Whether an opened TIFF is a camera's raw file, of which only the small preview would be read."""
    if image.format != "TIFF":
        return False
    tags = getattr(image, "tag_v2", {})
    return (
        _DNG_VERSION in tags
        or _CAMERA_PATTERN in tags
        or (_SUB_IMAGES in tags and _MAKER in tags and bool(tags.get(_SMALLER, 0) & 1))
        or name.lower().endswith(_RAW_NAMES)
    )
