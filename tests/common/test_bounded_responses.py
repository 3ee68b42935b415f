"""Answers without end are cut off by both kinds of client, and compressed ones are not unpacked."""

import asyncio

import httpx
import pytest

from onesearch.common.bounded_responses import bounded, bounded_async


class RefusedError(Exception):
    """Of this client."""


def read(asynchronous, body, headers=()):
    """What a client that reads at most ten bytes gets of a server that answers with these chunks."""

    async def chunks():
        for chunk in body:
            yield chunk

    def answer(_request):
        return httpx.Response(200, headers=dict(headers), content=chunks() if asynchronous else iter(body))

    def read_now():
        with httpx.Client(
            transport=httpx.MockTransport(answer), event_hooks={"response": [bounded(10, RefusedError)]}
        ) as client:
            return client.get("http://test").content

    async def read_later():
        hooks = {"response": [bounded_async(10, RefusedError)]}
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), event_hooks=hooks) as client:
            return (await client.get("http://test")).content

    return asyncio.run(read_later()) if asynchronous else read_now()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_answer_is_read_up_to_so_many_bytes(asynchronous):
    assert read(asynchronous, [b"12345", b"67890"]) == b"1234567890"
    with pytest.raises(RefusedError, match="longer than 10 bytes"):
        read(asynchronous, [b"12345", b"67890", b"1"])


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_compressed_answer_is_refused(asynchronous):
    assert read(asynchronous, [b"1"], [("content-encoding", "identity")]) == b"1"
    with pytest.raises(RefusedError, match="compressed"):
        read(asynchronous, [b"1"], [("content-encoding", "gzip")])
