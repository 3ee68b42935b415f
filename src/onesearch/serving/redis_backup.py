"""The keys of a Redis store as a file of JSON lines, and back.

The first line says what the file is, the last one that it is whole; each other line is ``[type, key, milliseconds to
live or null, content]``, the content a text, a list, members with scores, fields with values, or entries of a stream
with their ids. A large key has several lines.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from onesearch.serving.store import StoreError

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

_HEAD = {"backup": "onesearch store in Redis", "version": 1}
_END = {"end": True}
_AT_ONCE = 1000  # members, entries or commands in one call
# A body may be newer than its revision, never missing: items that change meanwhile are read after their revisions.
_LAST = ("item_revisions", "items", "revision")
_RESTORING = "restoring:"
_KINDS = ("string", "list", "zset", "hash", "stream")
# Not the store's: the cache of thoughts has the same prefix.
_OTHERS = ("thoughts:", "personal:", "thought_queue", "thought_rejects", "checked", _RESTORING)


def write_backup(redis: "Redis", prefix: str, to: Path) -> None:
    """Write all keys of a store to a new file, while others use it.

    Raises:
        StoreError: there is such a file already.
    """
    if to.exists():
        raise StoreError(f"{to} exists already: choose another name, or move it away")
    part = to.with_name(f".{to.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps(_HEAD) + "\n")
            for name in [*sorted(_names(redis, prefix) - set(_LAST)), *_LAST]:
                for kind, content in _contents(redis, prefix + name):
                    # -1: for ever; -2: gone since
                    left = redis.pttl(prefix + name)
                    if left != -2:
                        line = [kind, name, left if left >= 0 else None, content]
                        file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.write(json.dumps(_END) + "\n")
        part.rename(to)
    finally:
        part.unlink(missing_ok=True)


def read_backup(redis: "Redis", prefix: str, backup: Path, origin: str) -> None:
    """Put the keys of a backup in the place of a store's own; the items last, and all at once.

    ``origin`` is the store's new name for itself, by which services notice that it is another.

    Raises:
        StoreError: no such backup, a newer version's, or a damaged one; nothing was changed.
    """
    # Everything goes beside the store first: a file that breaks off in the middle changes nothing.
    aside = prefix + _RESTORING
    try:
        restored = _fill_aside(redis, aside, backup)
    except BaseException:
        _delete(redis, redis.scan_iter(match=literally(aside) + "*", count=_AT_ONCE))
        raise
    # Shoppers and streams key by key.
    _delete(redis, (prefix + name for name in _names(redis, prefix) - restored - {*_LAST, "origin"}))
    pipe = redis.pipeline(transaction=False)
    for name in sorted(restored - {*_LAST, "origin"}):
        pipe.rename(aside + name, prefix + name)
        if len(pipe) >= _AT_ONCE:
            _execute_renames(pipe)
    _execute_renames(pipe)
    # Then the items, in one transaction with the origin: services rebuild their catalogue from what is there now.
    with redis.pipeline(transaction=True) as swap:
        for name in _LAST:
            swap.delete(prefix + name)
            if name in restored:
                swap.rename(aside + name, prefix + name)
        swap.set(prefix + "origin", origin)
        swap.delete(aside + "origin")
        swap.execute()


def _execute_renames(pipe: "Pipeline") -> None:
    """A key whose time is over meanwhile is gone, and no fault."""
    for answer in pipe.execute(raise_on_error=False):
        if isinstance(answer, Exception) and "no such key" not in str(answer):
            raise answer


def _fill_aside(redis: "Redis", aside: str, backup: Path) -> set[str]:
    """Fill keys with the prefix ``aside`` from a backup; their names without it."""
    _delete(redis, redis.scan_iter(match=literally(aside) + "*", count=_AT_ONCE))
    pipe, filled = redis.pipeline(transaction=False), set[str]()
    for kind, name, left, content in _lines(backup):
        try:
            _fill(pipe, kind, aside + name, content)
        except (TypeError, ValueError) as error:
            raise StoreError(f"{backup} is damaged: the {kind} {name!r} cannot be read") from error
        if left is not None:
            pipe.pexpire(aside + name, left)
        filled.add(name)
        if len(pipe) >= _AT_ONCE:
            pipe.execute()
    pipe.execute()
    return filled


def _names(redis: "Redis", prefix: str) -> set[str]:
    """The store's keys, without their prefix."""
    found = (key.removeprefix(prefix) for key in redis.scan_iter(match=literally(prefix) + "*", count=_AT_ONCE))
    return {name for name in found if not name.startswith(_OTHERS)}


def _contents(redis: "Redis", key: str) -> Iterator[tuple[str, Any]]:
    """The type of a key and its content, in parts that one call can carry; nothing where the key is gone."""
    kind = cast(str, redis.type(key))
    match kind:
        case "string":
            yield kind, redis.get(key)
        case "list":
            yield kind, redis.lrange(key, 0, -1)
        # Cursors miss nothing that is there all the time; what moves comes twice, the newest last.
        case "zset":
            yield from ((kind, part) for part in _parts(redis.zscan_iter(key, count=_AT_ONCE)))
        case "hash":
            yield from ((kind, part) for part in _parts(redis.hscan_iter(key, count=_AT_ONCE)))
        case "stream":
            after = "-"
            while page := cast(list[tuple[str, dict[str, str]]], redis.xrange(key, min=after, count=_AT_ONCE)):
                yield kind, page
                after = f"({page[-1][0]}"


def _fill(pipe: "Pipeline", kind: str, key: str, content: Any) -> None:
    """Add one line's content to a key."""
    match kind:
        case "string":
            pipe.set(key, content)
        case "list":
            pipe.rpush(key, *content)
        case "zset":
            pipe.zadd(key, {member: score for member, score in content})
        case "hash":
            pipe.hset(key, mapping=dict(content))
        case "stream":
            for entry, fields in content:
                pipe.xadd(key, fields, id=entry)


def _lines(backup: Path) -> Iterator[tuple[str, str, int | None, Any]]:
    """The lines of a backup between the first, which says that it is one, and the last, which says that it is whole."""
    number, ended = 0, False
    with backup.open(encoding="utf-8", errors="replace") as file:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                line = None
            if number == 1:
                _check_head(backup, line)
            elif line == _END:
                ended = True
            elif isinstance(line, list) and len(line) == 4 and line[0] in _KINDS and not ended:
                yield line[0], line[1], line[2], line[3]
            else:
                raise StoreError(f"{backup} is damaged: line {number} is not whole")
    if number == 0:
        _check_head(backup, None)
    if not ended:
        raise StoreError(f"{backup} is damaged: it breaks off behind line {number}")


def _check_head(backup: Path, head: Any) -> None:
    if not isinstance(head, dict) or head.get("backup") != _HEAD["backup"]:
        raise StoreError(f"{backup} is no backup of a store in Redis")
    if head.get("version") != _HEAD["version"]:
        raise StoreError(f"{backup}: written by a newer onesearch (version {head.get('version')}, known: 1); upgrade")


def _parts(members: Iterable[Any]) -> Iterator[list[Any]]:
    part = []
    for member in members:
        part.append(member)
        if len(part) == _AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def _delete(redis: "Redis", keys: Iterable[str]) -> None:
    for part in _parts(keys):
        redis.delete(*part)


def literally(text: str) -> str:
    """A pattern of Redis for exactly this text."""
    return "".join(f"\\{letter}" if letter in "*?[]\\^" else letter for letter in text)
