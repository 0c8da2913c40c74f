"""Writer of Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows of cells as a Markdown table, without columns that are empty in every row."""
    found = [list(row) for row in rows]
    kept = [i for i in range(len(head)) if any(row[i] for row in found)]
    lines = [[head[i] for i in kept], ["---"] * len(kept)]
    lines += [[row[i].replace("|", "\\|") or " " for i in kept] for row in found]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
