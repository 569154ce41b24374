"""A drawing as a file of its own: title, words and the look of its page, light and dark, in one SVG.

The drawings of this package are parts of a page whose style sheets they need; here those rules stand in the file, so
that it can be shown by whatever shows an image. Links would lead nowhere and stay out.
"""

from __future__ import annotations

import re
from html import escape
from textwrap import wrap

WIDTH = 920
LEFT, RIGHT = 64, 28  # margins of the drawing: labels of the axis upwards stand to the left of it
TITLE, LINE, FOOT = 34, 17, 18
CHARACTERS = 128  # of a line of the caption at 12 px


def sheet(drawing: str, title: str, caption: str, style: str) -> str:
    """An SVG document of a drawing; empty for an empty drawing. `style`: CSS of what it draws, with its variables."""
    if not drawing:
        return ""
    found = re.match(r'<svg [^>]*?height="([\d.]+)"', drawing)
    if found is None:
        raise ValueError("a drawing says its height first")
    drawn, lines = float(found[1]), wrap(caption, CHARACTERS)
    top = TITLE + LINE * len(lines) + 14
    height = top + drawn + FOOT
    words = "".join(
        f'<text class="caption" x="16" y="{TITLE + LINE * number + 6}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}">'
        f"<style>{style}{OWN}</style>"
        f'<rect class="paper" width="{WIDTH}" height="{height:g}"/>'
        f'<text class="title" x="16" y="22">{escape(title)}</text>{words}'
        f'<svg class="place" x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{drawn:g}">{drawing}</svg>'
        "</svg>\n"
    )


OWN = (
    "text{font-family:var(--sans);font-size:11px;fill:var(--muted)}.paper{fill:var(--surface)}.place{overflow:visible}"
    ".title{font-size:15px;font-weight:650;fill:var(--text)}.caption{font-size:12px}"
)


def rules(css: str, kind: str) -> str:
    """The rules of a style sheet for drawings of this class."""
    plain = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    found = re.findall(r"([^{}]+)\{([^{}]*)\}", plain)
    return "".join(
        f"{selector.strip()}{{{body.strip()}}}"
        for selector, body in found
        if re.match(rf"svg\.{re.escape(kind)}\b", selector.strip())
    )


def variables(css: str, used: str) -> str:
    """The variables that the rules in `used` name, as the style sheet sets them: light, and dark where that is wished.

    Variables whose value names another are not followed.
    """
    light, dark = (_block(css, selector) for selector in (":root", ':root[data-theme="dark"]'))
    names = {*re.findall(r"var\((--[\w-]+)\)", used + OWN)}
    if missing := sorted(names - light.keys()):
        raise ValueError(f"the style sheet sets no {', '.join(missing)}")

    def written(values: dict[str, str]) -> str:
        return ";".join(f"{name}:{values[name]}" for name in sorted(names & values.keys()))

    return f":root{{{written(light)}}}@media (prefers-color-scheme:dark){{:root{{{written(dark)}}}}}"


def _block(css: str, selector: str) -> dict[str, str]:
    found = re.search(re.escape(selector) + r"\s*\{([^}]*)\}", css)
    return dict(re.findall(r"(--[\w-]+):\s*([^;]+);", found[1])) if found else {}
