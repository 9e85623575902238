"""Names of settings that must be known before torch is loaded."""

from __future__ import annotations

from typing import Literal

SamplerName = Literal["ddim", "dpm++"]
