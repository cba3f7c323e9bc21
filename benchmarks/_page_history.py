"""What docs/performance.md says of the history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _tables import shown, table


def history(r: Mapping[str, Any]) -> str:
    ways = {f"a call for {count}": pair for count, pair in r["calls"].items()}
    rows = [[name, *_pair(pair, " ms")] for name, pair in ways.items()]
    rows.append(["a whole `pictura generate`", *_pair(r["starting"], " s")])
    kept = [
        [f"{side} x {side}", *(shown(one, " ms") for one in pair.values())]
        for side, pair in r["keeping"].items()
    ]
    found = [[name, shown(took, " ms")] for name, took in r["searching"]["ms"].items()]
    return f"""## The history

What keeping pictures costs beside drawing them. Times are by picture, of the built-in model with its own
settings on one thread; a call returns when its pictures and their rows would survive a loss of power.

{table(["", "with the history", "without", "between the quickest of each"], rows)}

Keeping alone, by the size of the picture: most of it goes into compressing the PNG, which several at once
share out among threads.

{table(["picture", "one", "each of sixteen together"], kept)}

Searching {r["searching"]["rows"]:,} pictures ({r["searching"]["bytes_a_row"]} bytes a row, words indexed), a
page of fifty, in SQLite:

{table(["looked for", "the page takes"], found)}
"""


def _pair(pair: Mapping[str, Any], unit: str) -> list[str]:
    apart = pair["with"]["min"] - pair["without"]["min"]
    return [shown(pair["with"], unit), shown(pair["without"], unit), f"{apart:.2g}{unit}"]
