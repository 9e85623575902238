"""The PLY of 3D Gaussian splatting, which other viewers read: binary little endian, one vertex a splat.

Properties, all float: x y z, nx ny nz (zeros), f_dc_0..2, f_rest_* (all of red, then of green, then of blue), opacity
(a logit), scale_0..2 (logarithms), rot_0..3 (w, x, y, z). A colour is 0.5 + the sum of its spherical harmonics.

Axes: such files come from photogrammetry, where +Y is down and +Z goes into the picture, and viewers take them so. Ours
are turned by half a turn about X on their way: (x, y, z) is written as (x, -y, -z). In a viewer the object is upright
and faces whoever looks along +Z.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gen3d.render.spherical_harmonics import HALF_TURN_ABOUT_X

_END = b"end_header\n"
_MOST = 10_000_000


def encode_splats(tensors: Mapping[str, Tensor]) -> bytes:
    """The file of splats: `means [N, 3]`, `features [N, K, 3]`, `opacities [N]`, `scales [N, 3]`, `rotations [N, 4]`,
    as of `gen3d.representations.splat_cloud.SplatCloud`. The same splats give the same bytes."""
    own = _turned({name: each.detach().cpu() for name, each in tensors.items()})
    count, degree = len(own["means"]), own["features"].shape[1]
    columns = [
        own["means"],
        torch.zeros(count, 3),
        own["features"][:, 0],
        own["features"][:, 1:].transpose(1, 2).reshape(count, -1),
        own["opacities"][:, None],
        own["scales"],
        torch.nn.functional.normalize(own["rotations"], dim=-1),
    ]
    header = ["ply", "format binary_little_endian 1.0", "comment Galatea: 3D Gaussians, +Y down, +Z forward"]
    header += [f"element vertex {count}", *(f"property float {name}" for name in _names(degree))]
    table = torch.cat(columns, dim=1).float().numpy().astype("<f4")
    return ("\n".join(header) + "\n").encode() + _END + table.tobytes()


def load_splats(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file of `encode_splats`, or of another program, in our axes. ValueError for any other file."""
    path = Path(path)
    data = path.read_bytes()
    end = data.find(_END)
    lines = data[: max(end, 0)].decode("latin-1").splitlines()
    if len(lines) < 3 or lines[0] != "ply" or lines[1] != "format binary_little_endian 1.0":
        raise ValueError(f"{path.name} is no binary little endian PLY")
    elements = [line.split() for line in lines if line.startswith("element ")]
    count = re.fullmatch(r"element vertex (\d{1,9})", " ".join(elements[0])) if elements else None
    names = [line.split()[-1] for line in lines if line.startswith("property ")]
    plain = all(re.fullmatch(r"property float(32)? \w+", line) for line in lines if line.startswith("prop"))
    rest = sum(name.startswith("f_rest_") for name in names)
    degree = {0: 1, 9: 4, 24: 9, 45: 16}.get(rest)
    missing = [name for name in _names(degree or 1) if name not in names and name not in ("nx", "ny", "nz")]
    if count is None or len(elements) != 1 or not plain or degree is None or missing:
        lacks = f"; it lacks {', '.join(missing)}" if missing else ""
        raise ValueError(f"{path.name} holds no 3D Gaussians: one element of floats is wanted{lacks}")
    number = int(count[1])
    if not 1 <= number <= _MOST:
        raise ValueError(f"{path.name} has {number:,} splats; 1 to {_MOST:,} can be read")
    body = data[end + len(_END) :]
    if len(body) < number * len(names) * 4:
        raise ValueError(f"{path.name} is cut short: {number:,} splats are announced")
    table = torch.from_numpy(
        np.frombuffer(body, "<f4", number * len(names)).reshape(number, -1).astype(np.float32)
    )

    def columns(*wanted: str) -> Tensor:
        return table[:, [names.index(name) for name in wanted]]

    if not bool(torch.isfinite(table).all()):
        raise ValueError(f"{path.name} holds NaN or infinity")
    features = [columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None]]
    if rest:
        others = columns(*(f"f_rest_{index}" for index in range(rest)))
        features.append(others.view(number, 3, degree - 1).transpose(1, 2))
    tensors = {
        "means": columns("x", "y", "z"),
        "features": torch.cat(features, dim=1).contiguous(),
        "opacities": columns("opacity")[:, 0].contiguous(),
        "scales": columns("scale_0", "scale_1", "scale_2"),
        "rotations": columns("rot_0", "rot_1", "rot_2", "rot_3"),
    }
    return _turned(tensors)


def _names(coefficients: int) -> list[str]:
    """Those of the columns, in order, with so many coefficients of spherical harmonics."""
    return [
        "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2",
        *(f"f_rest_{index}" for index in range(3 * (coefficients - 1))),
        "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
    ]  # fmt: skip


def _turned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """By half a turn about X: there and, up to the sign of quaternions, back."""
    w, x, y, z = tensors["rotations"].unbind(-1)
    signs = torch.tensor(HALF_TURN_ABOUT_X[: tensors["features"].shape[1]], dtype=torch.float32)
    return tensors | {
        "means": tensors["means"] * torch.tensor([1.0, -1.0, -1.0]),
        "features": tensors["features"] * signs[:, None],
        "rotations": torch.stack([-x, w, -z, y], dim=-1),
    }
