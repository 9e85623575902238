"""Settings that change as an optimisation goes on, as explicit points: nothing here needs torch."""

from __future__ import annotations

from bisect import bisect_right

# A number, or points (share of the steps done, value) between which it is linear and beyond which it stays.
Points = float | tuple[tuple[float, float], ...]


def value_at(points: Points, progress: float) -> float:
    """The value when the share `progress` (0 to 1) of the steps is done."""
    if isinstance(points, (int, float)):
        return float(points)
    after = bisect_right([share for share, _ in points], progress)
    if after == 0:
        return points[0][1]
    if after == len(points):
        return points[-1][1]
    (low, first), (high, second) = points[after - 1 : after + 1]
    return first + (second - first) * (progress - low) / (high - low)


def check_points(name: str, points: Points, low: float, high: float) -> None:
    """Refuse values outside `low`..`high`, and shares that do not rise within 0..1; the ValueError begins with
    `name`."""
    if isinstance(points, (int, float)) and not isinstance(points, bool):
        values: list[float] = [points]
    else:
        if not isinstance(points, tuple) or not points or any(len(point) != 2 for point in points):
            raise ValueError(
                f"{name} must be a number or points [[share of the steps, value], ...], got {points!r}"
            )
        shares, values = [share for share, _ in points], [value for _, value in points]
        if shares != sorted(shares) or shares[0] < 0 or shares[-1] > 1:
            raise ValueError(f"{name}: the points' shares of the steps must rise within 0..1, got {shares}")
    if any(not low <= value <= high for value in values):
        raise ValueError(f"{name} must lie in {low:g}..{high:g}, got {', '.join(f'{v:g}' for v in values)}")
