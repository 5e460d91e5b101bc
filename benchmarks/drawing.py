"""What came out, as a picture: for each case a bar per contender, its median, with a line from the least to the most of its rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT = 960, 140, 230
BAR, GAP, HEAD = 15, 5, 46
OURS, THEIRS, INK = "#1b6ca8", "#b9c4cd", "#444"


def draw(machine: Mapping[str, Any], cases: Mapping[str, Any]) -> str:
    """An SVG of all cases that have anybody beside Wattle. Axes are logarithmic: contenders are up to a thousand times apart."""
    parts: list[str] = []
    top = 34.0
    for name, found in cases.items():
        if len(found["contenders"]) > 1:
            parts += _panel(top, name, found)
            top += HEAD + len(found["contenders"]) * (BAR + GAP) + 24
    about = f"{machine['cpus']} CPUs ({machine['cpu']}), Wattle {machine['wattle']}. Shorter is better; the scale is logarithmic."
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:.0f}" font-family="sans-serif" font-size="12">'
    note = f'<text x="12" y="20" fill="{INK}">{escape(about)}</text>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{top:.0f}" fill="#fff"/>', note, *parts, "</svg>", ""])


def _panel(top: float, name: str, found: Mapping[str, Any]) -> list[str]:
    contenders = found["contenders"]
    low = 10.0 ** math.floor(math.log10(min(seen["least"] for seen in contenders.values())) - 0.3)
    high = 10.0 ** math.ceil(math.log10(max(seen["most"] for seen in contenders.values())))
    decades = round(math.log10(high / low))

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log10(value / low) / decades

    bottom = top + HEAD + len(contenders) * (BAR + GAP)
    parts = [
        f'<text x="12" y="{top + 16:.0f}" font-weight="bold" font-size="14">{escape(name)}</text>',
        f'<text x="12" y="{top + 33:.0f}" fill="{INK}">{escape(found["title"].replace("``", ""))} In {escape(found["unit"])}.</text>',
    ]
    for n in range(decades + 1):
        at = x(low * 10**n)
        parts.append(f'<path d="M{at:.1f} {top + HEAD - 4:.0f}V{bottom:.0f}" stroke="#e4e4e4"/>')
        parts.append(
            f'<text x="{at:.1f}" y="{bottom + 13:.0f}" text-anchor="middle" font-size="10" fill="{INK}">{low * 10**n:g}</text>'
        )
    for n, (who, seen) in enumerate(contenders.items()):
        y = top + HEAD + n * (BAR + GAP)
        middle, colour = y + BAR / 2, OURS if who == "wattle" else THEIRS
        ratio = found["ratios"].get(f"wattle/{who}")
        told = _number(seen["median"]) + (f"  (Wattle: {_number(ratio['median'])} times that)" if ratio else "")
        parts += [
            f'<text x="{LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(who)}</text>',
            f'<rect x="{LEFT}" y="{y:.1f}" width="{x(seen["median"]) - LEFT:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<path d="M{x(seen["least"]):.1f} {middle:.1f}H{x(seen["most"]):.1f}" stroke="#000" stroke-width="1.5"/>',
            f'<text x="{x(seen["most"]) + 8:.1f}" y="{middle + 4:.1f}">{told}</text>',
        ]
    return parts


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
