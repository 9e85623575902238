"""A picture of a whole benchmark, a caption a row: the caption, the truth and what was made, each from all sides."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from files.atomic import write_bytes
from gen3d.files import png_bytes
from video.pixels import to_uint8

_Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
_TEXT_WIDTH, _GAP, _BETWEEN, _HEADER = 230, 2, 14, 24
_INK, _FAINT, _ALARM = (20, 20, 20), (110, 110, 110), (180, 20, 20)


@dataclass(frozen=True, kw_only=True)
class Row:
    """blocks: the truth and whatever is held against it, pictures [V, 3, S, S] in [0, 1], the truth first; None for
    what failed. line: the scores."""

    caption: str
    line: str
    blocks: tuple[Tensor | None, ...]


def draw(rows: Sequence[Row], titles: Sequence[str]) -> Image.Image:
    """All rows have as many blocks, which have as many views of one size. titles: over the blocks."""
    if not rows:
        raise ValueError("rows is empty; a contact sheet needs at least one")
    truth = rows[0].blocks[0]
    if truth is None:
        raise ValueError("the first block of a row is the truth, which cannot be missing")
    num_views, _, size, _ = truth.shape
    block = num_views * (size + _GAP) - _GAP
    lefts = [_TEXT_WIDTH + index * (block + _BETWEEN) for index in range(len(titles))]
    sheet = Image.new("RGB", (lefts[-1] + block + _GAP, _HEADER + len(rows) * (size + _GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for left, text in zip(lefts, titles, strict=True):
        pen.text((left, 6), text, _INK, font=font)
    for index, row in enumerate(rows):
        top = _HEADER + index * (size + _GAP)
        _write(pen, font, (6, top + 4), row, size)
        for left, views in zip(lefts, row.blocks, strict=True):
            if views is not None:
                _paste(sheet, views, left, top)
            else:
                pen.rectangle((left, top, left + block - 1, top + size - 1), outline=_ALARM)
                pen.text((left + 8, top + size // 2), "failed", _ALARM, font=font)
    return sheet


def save(rows: Sequence[Row], path: Path, titles: Sequence[str]) -> None:
    """Write the sheet as PNG, atomically."""
    write_bytes(path, png_bytes(draw(rows, titles)))


def _write(pen: ImageDraw.ImageDraw, font: _Font, at: tuple[int, int], row: Row, size: int) -> None:
    # The default font knows Latin letters only.
    caption = row.caption.encode("ascii", "replace").decode()
    x, y = at
    for line in textwrap.wrap(caption, 36)[: max(size // 14 - 2, 1)]:
        pen.text((x, y), line, _INK, font=font)
        y += 13
    pen.text((x, y + 3), "\n".join(textwrap.wrap(row.line, 38)), _FAINT, font=font)


def _paste(sheet: Image.Image, views: Tensor, left: int, top: int) -> None:
    pixels = to_uint8(views).permute(0, 2, 3, 1).cpu().numpy()
    for index, view in enumerate(pixels):
        sheet.paste(Image.fromarray(np.ascontiguousarray(view)), (left + index * (view.shape[1] + _GAP), top))
