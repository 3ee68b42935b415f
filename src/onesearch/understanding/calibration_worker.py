"""Step 3 for many shoppers: keywords of a query calibrated by a history, and kept in the cache apart from thoughts."""

import asyncio
import signal
import time
from collections import deque
from collections.abc import Mapping

from onesearch.understanding.llm_producer import BudgetSpent, LLMUnavailableError
from onesearch.understanding.preference_calibration import Calibrator, HistoryTexts
from onesearch.understanding.stop_signals import GRACE, run_until_stopped
from onesearch.understanding.thought import Thought, ThoughtError
from onesearch.understanding.thought_cache import ThoughtCache, cache_key, history_fingerprint
from onesearch.understanding.work_summary import Summary, UsageMeter

ShopperKey = tuple[str, str]
"""A normalised query and the fingerprint of a history."""


def shopper_key(query: str, history: HistoryTexts) -> ShopperKey:
    """Under which the cache keeps personalised keywords, beside who wrote them."""
    return cache_key(query), history_fingerprint(history)


async def calibrate_all(
    shoppers: Mapping[ShopperKey, tuple[Thought, HistoryTexts]],
    calibrator: Calibrator,
    cache: ThoughtCache,
    stop: asyncio.Event,
    concurrency: int = 16,
) -> Summary:
    """Have keywords calibrated for the shoppers that are not in the cache; each answer is kept at once.

    A server that does not answer ends the work: the calibrator has tried several times by then, and the same call goes
    on where it stopped. Who gets no usable answer is counted, and asked again by another call.

    Args:
        shoppers: a thought and a history by :func:`shopper_key`.
        calibrator: who is asked.
        cache: gets the keywords.
        stop: once set, nothing more is asked; calls in flight get :data:`~onesearch.understanding.stop_signals.GRACE`
            seconds.
        concurrency: calls in flight.

    Raises:
        CacheError, LLMError: nothing can be asked or kept. What was answered until then is kept.
    """
    summary = Summary("queries with a history", given=len(shoppers), asked=len(shoppers))
    start, meter, who = time.monotonic(), UsageMeter(calibrator), (calibrator.name, calibrator.version)
    todo = deque(key for key in shoppers if cache.get_personal(*key, *who) is None)
    summary.cached = len(shoppers) - len(todo)

    async def ask_one_after_the_other() -> None:
        while todo and not stop.is_set():
            key = todo.popleft()
            try:
                keywords = await calibrator.calibrate(*shoppers[key])
                cache.put_personal(*key, *who, keywords)
                summary.answered += 1
            except ThoughtError as error:
                summary.set_aside += 1
                summary.reasons[str(error).split(": ", 1)[0]] += 1
            except (BudgetSpent, LLMUnavailableError) as error:
                summary.stopped = summary.stopped or str(error)
                todo.clear()
            except Exception:
                todo.clear()  # whatever it is, it ends the other slots, too
                raise

    slots = [asyncio.create_task(ask_one_after_the_other()) for _ in range(concurrency)]

    async def cut_off() -> None:
        await stop.wait()
        await asyncio.sleep(GRACE)
        for slot in slots:
            slot.cancel()

    cutting = asyncio.create_task(cut_off())
    ended = await asyncio.gather(*slots, return_exceptions=True)
    cutting.cancel()
    for error in ended:
        if isinstance(error, Exception):
            raise error
    summary.unfinished = summary.asked - summary.cached - summary.answered - summary.set_aside
    if stop.is_set() and summary.unfinished:
        summary.stopped = summary.stopped or "interrupted"
    for name, value in meter.used().items():
        setattr(summary, name, value)
    summary.seconds = time.monotonic() - start
    return summary


def run_calibrate(
    shoppers: Mapping[ShopperKey, tuple[Thought, HistoryTexts]],
    calibrator: Calibrator,
    cache: ThoughtCache,
    concurrency: int = 16,
) -> Summary:
    """:func:`calibrate_all` from ordinary code. Ctrl-C stops it cleanly, a second one at once."""
    return run_until_stopped(
        lambda stop: calibrate_all(shoppers, calibrator, cache, stop, concurrency), calibrator, signal.SIGINT
    )
