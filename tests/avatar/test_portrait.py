from __future__ import annotations

import contextlib
import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, TiffImagePlugin
from torch import Tensor

from avatar.portrait import MAX_SIDE, MIN_SIDE, PortraitError, load_portrait

_HEIGHT, _WIDTH = 40, 56
_ASSETS = Path(__file__).parent / "assets"


def _picture() -> np.ndarray:
    """[H, W, 3] uint8: smooth, so that lossy formats keep it, and different in each corner."""
    y, x = np.mgrid[0:_HEIGHT, 0:_WIDTH].astype(np.float32)
    channels = [x / _WIDTH, y / _HEIGHT, 0.5 + 0.4 * np.sin((x + 2 * y) / 30)]
    return (np.stack(channels, axis=-1) * 255).round().astype(np.uint8)


def _array(portrait: Tensor) -> np.ndarray:
    """[H, W, 3] in 0 ... 255."""
    return portrait.permute(1, 2, 0).numpy() * 255.0


def _error(path: Path | str) -> str:
    with pytest.raises(PortraitError) as caught:
        load_portrait(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "tolerance", "options"),
    [("a.png", 0.01, {}), ("a.bmp", 0.01, {}), ("a.tiff", 0.01, {}), ("a.ppm", 0.01, {}),
     ("a.webp", 0.01, {"lossless": True}), ("a.webp", 24.0, {}), ("a.jpg", 14.0, {"quality": 95}),
     ("a.jpg", 14.0, {"quality": 95, "progressive": True}), ("wrong_name.txt", 0.01, {"format": "PNG"})],
)  # fmt: skip
def test_formats(tmp_path: Path, name: str, tolerance: float, options: dict) -> None:
    path = tmp_path / name
    Image.fromarray(_picture()).save(path, **options)
    portrait = load_portrait(path)
    assert portrait.shape == (3, _HEIGHT, _WIDTH)
    assert portrait.dtype == torch.float32
    assert portrait.is_contiguous()
    assert 0.0 <= float(portrait.min()) <= float(portrait.max()) <= 1.0
    assert np.abs(_array(portrait) - _picture()).max() <= tolerance
    assert torch.equal(load_portrait(str(path)), portrait)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff"])
def test_exif_rotation(tmp_path: Path, name: str, orientation: int) -> None:
    upright = _picture()
    # What the camera stored, so that the tag leads back to upright.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright), 7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if name.endswith(("png", "tiff")) else {"quality": 100}
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / name, exif=exif, **options)
    assert np.abs(_array(load_portrait(tmp_path / name)) - upright).max() <= 10


def test_damaged_exif_does_not_matter(tmp_path: Path) -> None:
    Image.fromarray(_picture()).save(
        tmp_path / "a.jpg", quality=95, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f"
    )
    assert np.abs(_array(load_portrait(tmp_path / "a.jpg")) - _picture()).max() <= 14


def test_alpha_lies_on_white(tmp_path: Path) -> None:
    alpha = np.zeros((_HEIGHT, _WIDTH, 1), np.uint8)
    alpha[:, 20:30], alpha[:, 30:] = 51, 255
    Image.fromarray(np.concatenate([_picture(), alpha], axis=-1)).save(tmp_path / "a.png")
    found = _array(load_portrait(tmp_path / "a.png"))
    assert np.abs(found[:, :20] - 255.0).max() < 0.01
    assert np.abs(found[:, 20:30] - (0.2 * _picture()[:, 20:30] + 0.8 * 255.0)).max() < 0.01
    assert np.abs(found[:, 30:] - _picture()[:, 30:]).max() < 0.01


def test_grey_with_alpha_and_transparent_palette(tmp_path: Path) -> None:
    grey = Image.fromarray(_picture()).convert("L")
    clear = Image.new("L", grey.size, 0)
    Image.merge("LA", [grey, clear]).save(tmp_path / "la.png")
    assert bool((load_portrait(tmp_path / "la.png") == 1.0).all())
    palette = Image.new("P", (_WIDTH, _HEIGHT), 0)
    palette.putpalette([200, 0, 0, 0, 100, 0])
    palette.paste(1, (10, 0, _WIDTH, _HEIGHT))
    palette.save(tmp_path / "p.png", transparency=0)
    found = _array(load_portrait(tmp_path / "p.png"))
    assert np.abs(found[:, :10] - 255.0).max() < 0.01
    assert np.abs(found[:, 10:] - np.array([0.0, 100.0, 0.0])).max() < 0.01


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "YCbCr"])
def test_modes(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(_picture()).convert(mode)
    path = tmp_path / ("a.tiff" if mode in ("CMYK", "YCbCr") else "a.png")
    image.save(path)
    expected = np.asarray(image.convert("RGB"), dtype=np.float32)
    assert np.abs(_array(load_portrait(path)) - expected).max() <= 4


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.fromarray(_picture()).convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    assert np.abs(_array(load_portrait(tmp_path / "a.jpg")) - _picture()).mean() < 3


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_sixteen_bit_grey_keeps_its_precision(tmp_path: Path, name: str) -> None:
    values = np.linspace(0, 65535, _HEIGHT * _WIDTH).round().astype(np.uint16).reshape(_HEIGHT, _WIDTH)
    Image.fromarray(values).save(tmp_path / name)
    portrait = load_portrait(tmp_path / name)
    assert np.abs(portrait.numpy() - values / 65535.0).max() < 1e-6
    assert len(portrait.unique()) == values.size


def test_sixteen_bit_colour_png(tmp_path: Path) -> None:
    deep = (_picture().astype(">u2") * 257).astype(">u2")
    rows = b"".join(b"\x00" + row.tobytes() for row in deep)
    (tmp_path / "a.png").write_bytes(_png(_WIDTH, _HEIGHT, rows, depth=16))
    assert np.abs(_array(load_portrait(tmp_path / "a.png")) - _picture()).max() <= 1


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (48, 48), color) for color in ("red", "lime", "blue")]
    for name in ("a.gif", "a.webp", "a.png"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50, **options)
        found = load_portrait(tmp_path / name)
        assert torch.equal(found, torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 48, 48))


def test_colour_profile_becomes_srgb(tmp_path: Path) -> None:
    picture = Image.fromarray(_picture())
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(tmp_path / "srgb.png", icc_profile=plain)
    assert np.abs(_array(load_portrait(tmp_path / "srgb.png")) - _picture()).max() < 0.01
    lab = ImageCms.createProfile("LAB")
    picture.save(tmp_path / "odd.png", icc_profile=ImageCms.ImageCmsProfile(lab).tobytes())
    picture.save(tmp_path / "damaged.png", icc_profile=b"no profile")
    for name in ("odd.png", "damaged.png"):
        assert np.abs(_array(load_portrait(tmp_path / name)) - _picture()).max() < 0.01


def test_missing_folder_empty_and_unreadable(tmp_path: Path) -> None:
    assert (
        _error(tmp_path / "none.png")
        == f"there is no file {tmp_path / 'none.png'}; check the name and the folder"
    )
    assert "is a folder; name one picture file" in _error(tmp_path)
    (tmp_path / "empty.png").touch()
    assert "is an empty file" in _error(tmp_path / "empty.png")
    assert "cannot be opened" in _error("nul\x00.png")


def test_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("no picture at all, only words")
    message = _error(path)
    assert str(path) in message
    assert "no picture that can be read" in message
    assert "PNG, JPEG" in message
    # Encapsulated PostScript would start another program.
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n")
    assert "a PostScript document, which cannot be read; save it as" in _error(path)


def _brands(*brands: bytes) -> bytes:
    """The first box of a file of MP4's family: its major brand, a version, and the others."""
    body = brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body


@pytest.mark.parametrize(
    ("head", "words", "advice"),
    [
        (b"\xff\x0a\x7f", "a JPEG XL picture", "djxl"),
        (b"\x00\x00\x00\x0cJXL \x0d\x0a\x87\x0a", "a JPEG XL picture", "djxl"),
        (b"\x00\x00\x00\x0cjP  \x0d\x0a\x87\x0a", "a JPEG 2000 picture", "JPEG or PNG"),
        (b"%PDF-1.7\n", "a PDF document", "pdftoppm"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- me -->\n<svg xmlns='x'>", "an SVG drawing", "as PNG"),
        (b"<svg viewBox='0 0 9 9'/>", "an SVG drawing", "as PNG"),
        (b"\n<!DOCTYPE html><html>", "a web page", "download the picture"),
        (_brands(b"isom", b"avc1"), "a video", "-frames:v 1"),
        (_brands(b"qt  "), "a video", "-frames:v 1"),
        (b"\x1aE\xdf\xa3webm", "a video", "-frames:v 1"),
        (b"RIFF\x10\x00\x00\x00AVI LIST", "a video", "-frames:v 1"),
        (_brands(b"M4A ", b"isom"), "a sound file", "name a picture"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "a sound file", "name a picture"),
        (_brands(b"crx ", b"isom"), "a camera's raw file", "develop it"),
        (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "a camera's raw file", "develop it"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's raw file", "develop it"),
        (b"8BPS\x00\x01", "a Photoshop document", "JPEG or PNG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS", "git lfs pull"),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path: Path, head: bytes, words: str, advice: str) -> None:
    # Whatever the name says.
    (tmp_path / "a.jpg").write_bytes(head + bytes(500))
    message = _error(tmp_path / "a.jpg")
    assert f"a.jpg is {words}, which cannot be read; " in message
    assert advice in message


def test_raw_files_that_look_like_tiff_are_not_taken_for_their_preview(tmp_path: Path) -> None:
    preview = Image.fromarray(_picture())
    camera, preview_only = TiffImagePlugin.ImageFileDirectory_v2(), TiffImagePlugin.ImageFileDirectory_v2()
    camera[50_706] = b"\x01\x04\x00\x00"  # DNGVersion
    preview_only[254], preview_only[271], preview_only[330] = 1, "NIKON CORPORATION", 8
    for name, tags in (("a.tif", camera), ("b.tif", preview_only), ("c.NEF", {})):
        preview.save(tmp_path / name, format="TIFF", tiffinfo=tags)
        assert "is a camera's raw file, which cannot be read; develop it" in _error(tmp_path / name)
    scan = TiffImagePlugin.ImageFileDirectory_v2()
    scan[271] = "A scanner"
    preview.save(tmp_path / "d.tif", tiffinfo=scan)
    assert load_portrait(tmp_path / "d.tif").shape == (3, _HEIGHT, _WIDTH)


@pytest.mark.parametrize("name", ["quarters.heic", "turned.heic"])
def test_heic_is_read_upright(name: str) -> None:
    pytest.importorskip("pi_heif")
    found = _array(load_portrait(_ASSETS / name))
    assert found.shape == (48, 64, 3)
    for place, color in {(5, 5): "dc2828", (5, -5): "28c83c", (-5, 5): "323cd2", (-5, -5): "e6dc5a"}.items():
        assert np.abs(found[place] - np.array(list(bytes.fromhex(color)), np.float32)).max() < 6


def test_heic_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (_ASSETS / "quarters.heic").read_bytes()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pi_heif", None)  # as if it were not installed
        (tmp_path / "a.jpg").write_bytes(data)
        message = _error(tmp_path / "a.jpg")
        assert "is a HEIC picture (HEIF), which cannot be read; install pi-heif" in message
        assert "save it as JPEG or PNG" in message
    pytest.importorskip("pi_heif")
    for share in (0.3, 0.7):
        (tmp_path / "a.jpg").write_bytes(data[: int(share * len(data))])
        assert "is a damaged HE" in _error(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.gif", "a.tiff"])
def test_truncated(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for share in (0.5, 0.9, 0.02):
        (tmp_path / name).write_bytes(data[: int(len(data) * share)])
        message = _error(tmp_path / name)
        assert "damaged" in message or "no picture that can be read" in message


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.bmp", "a.tiff"])
def test_broken_bytes_give_a_picture_or_an_error(tmp_path: Path, name: str) -> None:
    Image.fromarray(_picture()).save(tmp_path / name)
    data = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
    rng = np.random.default_rng(1)
    for _ in range(25):
        broken = data.copy()
        places = rng.integers(0, len(data) if rng.random() < 0.5 else min(120, len(data)), rng.integers(1, 8))
        broken[places] = rng.integers(0, 256, len(places))
        (tmp_path / name).write_bytes(broken.tobytes())
        with contextlib.suppress(PortraitError):
            portrait = load_portrait(tmp_path / name)
            assert bool(torch.isfinite(portrait).all())


def test_too_small(tmp_path: Path) -> None:
    for size in ((1, 1), (MIN_SIDE - 1, 100), (100, MIN_SIDE - 1)):
        Image.new("RGB", size).save(tmp_path / "a.png")
        assert f"is too small: {size[0]} x {size[1]} pixels; at least 32 x 32" in _error(tmp_path / "a.png")
    Image.new("RGB", (MIN_SIDE, MIN_SIDE)).save(tmp_path / "a.png")
    assert load_portrait(tmp_path / "a.png").shape == (3, MIN_SIDE, MIN_SIDE)


@pytest.mark.parametrize(
    ("width", "height", "found"),
    [(20_000, 20_000, "400.0 megapixels"), (12_000, 12_000, "12000 x 12000"), (MAX_SIDE + 1, 100, "16385 x 100"),
     (9_000, 8_000, "9000 x 8000"), (2**31 - 1, 2**31 - 1, "megapixels")],
)  # fmt: skip
def test_too_large_is_seen_in_the_header(tmp_path: Path, width: int, height: int, found: str) -> None:
    # There is nothing behind the header to decode.
    (tmp_path / "a.png").write_bytes(_png(width, height, b""))
    message = _error(tmp_path / "a.png")
    assert "is too large" in message
    assert found in message
    assert "at most 64 megapixels" in message


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 40), 7.5, np.float32)).save(tmp_path / "a.tiff")
    assert "32 bits from 7.5 to 7.5" in _error(tmp_path / "a.tiff")


def _png(width: int, height: int, rows: bytes, depth: int = 8) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    out = io.BytesIO()
    out.write(b"\x89PNG\r\n\x1a\n")
    out.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)))
    out.write(chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return out.getvalue()
