"""The lines of a `metrics.jsonl`, one for each step in order, and what a record notes of them.

So rows that are lost or changed are seen.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LARGEST = 2**63
"""Of a whole number in a row, which tables hold in 64 bits."""


def parse_row(line: bytes) -> dict[str, Any] | None:
    """The row of one line of a `metrics.jsonl`; None for a torn or damaged one."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int) or row["step"] < 0:
        return None
    return row if all(map(_is_value, row.values())) else None


def _is_value(value: Any) -> bool:
    if isinstance(value, int):
        return abs(value) < LARGEST
    return value is None or isinstance(value, float)


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a metrics file up to its first damage or gap; none without a file.

    Steps count up from 0. Rows of one step may repeat, as older versions wrote them.
    """
    kept: list[bytes] = []
    step = -1
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        row = parse_row(line) if line.endswith(b"\n") else None
        if row is None or not max(step, 0) <= row["step"] <= step + 1:
            break
        step = row["step"]
        kept.append(line)
    return kept


def lines_below(lines: Sequence[bytes], step: int) -> list[bytes]:
    """Those of the lines that are of a lower step."""
    return [line for line in lines if json.loads(line)["step"] < step]


def last_step(lines: Sequence[bytes]) -> int:
    """The step of the last line; -1 without one."""
    return json.loads(lines[-1])["step"] if lines else -1


def noted(count: int, crc32: int) -> dict[str, Any]:
    """What a checkpoint or outcome.json notes of rows: how many, and the CRC-32 of their lines."""
    return {"count": count, "crc32": f"{crc32:08x}"}


def begin_with(lines: Sequence[bytes], rows: Mapping[str, Any]) -> bool:
    """Whether the first of some lines are the rows that were noted."""
    count = rows.get("count")
    if not isinstance(count, int) or not 0 <= count <= len(lines):
        return False
    return noted(count, zlib.crc32(b"".join(lines[:count]))) == dict(rows)
