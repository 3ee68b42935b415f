"""What another engine showed, beside what a service of ours answers to the same searches; docs/elasticsearch.md.

    python examples/shadow_traffic.py data/my-shop http://127.0.0.1:8000

The data set's page views are the other engine's log: what it showed for a query, and what was clicked there.
"""

import json
import os
import sys
from collections.abc import Callable
from urllib.request import Request, urlopen

from onesearch import Dataset

Search = Callable[[str, str | None], list[str]]


def compare(dataset: Dataset, search: Search, most: int = 1000) -> dict[str, float]:
    """Figures of the newest searches, first ten items each: ``theirs`` is what was shown, ``ours`` what we find."""
    newest = dataset.page_views.filter(dataset.page_views["query"] != "").sort("time").tail(most)
    rows = newest.select("query", "user_id", "shown", "clicked").to_dicts()
    found: dict[str, list[float]] = {}
    for row in rows:
        theirs, ours = (row["shown"] or [])[:10], search(row["query"], row["user_id"])[:10]
        figures = {
            "same items": len({*theirs} & {*ours}) / max(len(theirs), 1),
            "same first item": theirs[:1] == ours[:1],
            "theirs: empty": not theirs,
            "ours: empty": not ours,
        }
        # Shoppers could click what they saw: on these the other engine has the advantage.
        pages = {"theirs": theirs, "ours": ours} if row["clicked"] else {}
        for name, page in pages.items():
            ranks = [page.index(item) + 1 for item in row["clicked"] if item in page]
            figures |= {
                f"{name}: clicked item found": bool(ranks),
                f"{name}: 1 / its rank": 1 / min(ranks) if ranks else 0.0,
            }
        for name, value in figures.items():
            found.setdefault(name, []).append(float(value))
    return {"searches": len(rows)} | {name: sum(values) / len(values) for name, values in found.items()}


def asking(address: str) -> Search:
    """Searches of a service, which leave no trace in it; ``ONESEARCH_SEARCH_KEY`` is sent where it is set."""
    key = os.environ.get("ONESEARCH_SEARCH_KEY")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}

    def search(query: str, user: str | None) -> list[str]:
        body = {"query": query[:200], "user": user, "k": 10, "record": False, "fields": ["title"]}
        with urlopen(Request(f"{address}/search", json.dumps(body).encode(), headers)) as answer:
            return [result["item_id"] for result in json.load(answer)["results"]]

    return search


def main(folder: str, address: str) -> None:
    """Print the figures."""
    for name, value in compare(Dataset.load(folder), asking(address)).items():
        print(f"{name:28} {value:.3g}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/shadow_traffic.py DATASET ADDRESS")
    main(sys.argv[1], sys.argv[2])
