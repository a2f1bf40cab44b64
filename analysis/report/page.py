"""A readable HTML page out of plain values: everything that is shown is escaped here."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pandas as pd

from foretune.analysis.stats.verdict import Verdict

CSS: Final = """
:root { color-scheme: light dark; --ink: #22262a; --soft: #626a73; --line: #dfe3e7; --paper: #fff;
  --card: #f6f7f9; --yes: #1d7a46; --no: #b3261e; --maybe: #8a6100; --accent: #1f6f8b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --soft: #9aa3ac; --line: #363c43;
  --paper: #15181b; --card: #1e2226; --yes: #5cc98b; --no: #f28b82; --maybe: #e3b341;
  --accent: #6cc0dd; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 1.05rem; font-weight: 600; color: var(--soft); margin: 0 0 .75rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { max-width: 46rem; }
.headline { font-size: 1.45rem; line-height: 1.35; font-weight: 600; margin: 0 0 1rem; }
.soft, figcaption, caption { color: var(--soft); font-size: .92rem; }
ul.claims { list-style: none; padding: 0; margin: 0; }
ul.claims li { display: grid; grid-template-columns: 8.2rem 1fr; gap: .75rem; padding: .6rem 0;
  border-top: 1px solid var(--line); }
.badge { font-weight: 600; font-size: .9rem; }
.yes { color: var(--yes); } .no { color: var(--no); } .maybe { color: var(--maybe); }
figure { margin: 1.5rem 0 2.5rem; }
figure img { max-width: 100%; height: auto; display: block; background: #fff; padding: .6rem;
  border: 1px solid var(--line); border-radius: .5rem; }
figcaption { margin-top: .6rem; max-width: 46rem; }
.scroll { overflow-x: auto; margin: 1rem 0 2rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5rem; min-width: 20rem; max-width: 46rem; }
th, td { padding: .35rem .95rem .35rem 0; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; vertical-align: top; }
th { font-weight: 600; color: var(--soft); }
td.text, th.text { text-align: left; }
td.long { white-space: normal; min-width: 15rem; max-width: 34rem; overflow-wrap: anywhere; }
pre { background: var(--card); padding: .9rem 1rem; border-radius: .5rem; overflow-x: auto;
  font-size: .88rem; white-space: pre-wrap; overflow-wrap: anywhere; }
a { color: var(--accent); }
@media (max-width: 34rem) { ul.claims li { grid-template-columns: 1fr; gap: .1rem; } }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole document; the title is escaped, the parts of the body are HTML already."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def text(tag: str, content: str, style: str = "") -> str:
    """One element with escaped content and an optional class."""
    attribute = f' class="{html.escape(style)}"' if style else ""
    return f"<{tag}{attribute}>{html.escape(content)}</{tag}>"


def bullets(items: Iterable[str]) -> str:
    """An unordered list of escaped sentences."""
    return "<ul>" + "".join(text("li", item) for item in items) + "</ul>"


def verdicts(items: Iterable[tuple[Verdict, str]]) -> str:
    """Sentences with the verdict before each."""
    rows = []
    for verdict, sentence in items:
        style = verdict.choose("yes", "no", "maybe")
        rows.append(
            f"<li>{text('span', str(verdict), f'badge {style}')}{text('span', sentence)}</li>"
        )
    return f'<ul class="claims">{"".join(rows)}</ul>'


def figure(file: str, alt: str, caption: str) -> str:
    """An image beside the page, with the text that stands in for it and the one below it."""
    image = f'<img src="{html.escape(file)}" alt="{html.escape(alt)}" loading="lazy">'
    return f"<figure>{image}{text('figcaption', caption)}</figure>"


def table(frame: pd.DataFrame, caption: str, file: str) -> str:
    """A table under its own column names, with a link to its file; numbers get three digits."""
    styles = [_style(frame[name]) for name in frame.columns]
    heads = zip(frame.columns, styles, strict=True)
    head = "".join(text("th", str(name), style) for name, style in heads)
    rows = (
        "".join(text("td", show(v), s) for v, s in zip(values, styles, strict=True))
        for values in frame.itertuples(index=False)
    )
    link = f'<a href="{html.escape(file)}">CSV</a>'
    return (
        f'<div class="scroll"><table><caption>{html.escape(caption)} {link}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>"
        + "".join(f"<tr>{row}</tr>" for row in rows)
        + "</tbody></table></div>"
    )


def definitions(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values as a two-column table."""
    rows = (f"<tr>{text('th', n, 'text')}{text('td', v, 'text long')}</tr>" for n, v in pairs)
    return f'<div class="scroll"><table><tbody>{"".join(rows)}</tbody></table></div>'


def show(value: Any) -> str:
    """A cell's text: three significant digits, separators in whole numbers, a dash for nothing."""
    if value is None or value is pd.NA:
        return "\u2013"
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = type(value).__name__
        return str(bool(value)).lower() if kind in ("bool", "bool_") else str(value)
    if math.isnan(value):
        return "\u2013"
    if math.isinf(value):
        return "unbounded" if value > 0 else "-unbounded"
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.3g}"


def sentence(words: str) -> str:
    """The same words with a capital and a full stop."""
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."


def _style(column: pd.Series) -> str:
    """Numbers stand right; text stands left, and breaks where it is long."""
    if pd.api.types.is_numeric_dtype(column):
        return ""
    longest = max((len(show(value)) for value in column), default=0)
    return "text long" if longest > 32 else "text"
