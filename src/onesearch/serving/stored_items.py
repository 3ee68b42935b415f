"""How an item lies in the store: JSON with a record's fields, without the limits of what callers may send."""

import json
from dataclasses import asdict, fields
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from onesearch.data.records import Item, in_utc
from onesearch.serving.store import ItemChange

_RECORD: Final = TypeAdapter(Item)
_FIELDS: Final = frozenset(field.name for field in fields(Item))


def stored_text(item: Item) -> str:
    """The JSON form of a record; a time without a zone is UTC."""
    values: dict[str, Any] = asdict(item)
    for name in ("listed_at", "start", "end"):
        if values[name] is not None:
            values[name] = in_utc(values[name]).isoformat()
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def stored_change(revision: int, item_id: str, text: str) -> ItemChange:
    """A change as it was written; an empty text means deleted, and one that cannot be read has a ``problem``."""
    if not text:
        return ItemChange(revision, item_id, None)
    try:
        values = json.loads(text)
        if unknown := sorted(values.keys() - _FIELDS):
            raise ValueError(f"unknown field {unknown[0]!r}")
        item = _RECORD.validate_python(values)
    except (ValueError, AttributeError, RecursionError) as error:
        why = "; ".join(one["msg"] for one in error.errors()) if isinstance(error, ValidationError) else str(error)
        return ItemChange(revision, item_id, None, f"the store's text of it cannot be read: {why[:200]}; send it again")
    return ItemChange(revision, item_id, item)
