"""What the caches of thoughts have in common: keys, and JSON that is never trusted when it is read."""

import hashlib
import json
from collections.abc import Sequence

from onesearch.data.text import normalise_query
from onesearch.understanding.calibration import History
from onesearch.understanding.thought import MOST_KEYWORDS, Thought


def key_of(query: str) -> str:
    """The normalised query, with what UTF-8 cannot say (half a character from broken JSON) replaced by "?"."""
    return normalise_query(query if query.isascii() else query.encode(errors="replace").decode())


def fingerprint_of(history: History) -> str:
    """A hash of a shopper's history: its part of the key of personalised keywords."""
    text = json.dumps([history.queries, history.items, history.profile])
    return hashlib.sha256(text.encode()).hexdigest()


def encoded(thought: Thought) -> tuple[str, str, str, str]:
    """(normalised query, producer, version, JSON) of a thought; raises as `ThoughtCache.put` does."""
    # Exactly this type: step 3 and training have no form that could be mistaken for what every shopper shares.
    if type(thought) is not Thought:
        raise TypeError(f"the cache of queries holds thoughts of steps 1 and 2 only, not {type(thought).__name__}")
    body = thought.model_dump_json()
    Thought.model_validate_json(body)  # objects made without validation end here
    return key_of(thought.query), thought.producer, thought.version, body


def decoded(keys: dict[str, str], bodies: dict[str, str], producer: str, version: str) -> dict[str, Thought]:
    """Thoughts by query as given; ``keys``: its normalised form, ``bodies``: JSON by normalised form."""
    thoughts: dict[str, Thought] = {}
    for key, body in bodies.items():
        try:
            thought = Thought.model_validate_json(body)
        except ValueError:
            continue
        if (key_of(thought.query), thought.producer, thought.version) == (key, producer, version):
            thoughts[key] = thought
    return {query: thoughts[key] for query, key in keys.items() if key in thoughts}


def encoded_keywords(keywords: Sequence[str]) -> str:
    """Personalised keywords as JSON; raises as `ThoughtCache.put_personal` does."""
    if not isinstance(keywords, (tuple, list)):
        raise TypeError(f"personalised keywords are a tuple of texts, not {type(keywords).__name__}")
    if len(keywords) > MOST_KEYWORDS:
        raise ValueError(f"{len(keywords)} personalised keywords; at most {MOST_KEYWORDS}")
    return json.dumps(list(keywords), ensure_ascii=False)


def decoded_keywords(body: str) -> tuple[str, ...] | None:
    """Personalised keywords from JSON; None for anything else."""
    try:
        found = json.loads(body)
    except (TypeError, ValueError, RecursionError):
        return None
    if not isinstance(found, list) or len(found) > MOST_KEYWORDS or not all(isinstance(word, str) for word in found):
        return None
    return tuple(found)
