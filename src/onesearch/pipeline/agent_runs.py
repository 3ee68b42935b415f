"""``onesearch agents``: a run's engine before agents that shop for the shoppers of its market."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from onesearch.evaluation.agent_figures import figures, session_sums
from onesearch.evaluation.agent_sessions import Agent, MakeAgent, Session, Shoppers, need_rows, session_page_views, shop
from onesearch.evaluation.market_laboratory import Laboratory
from onesearch.evaluation.model_agent import ChatModel, ModelAgent
from onesearch.evaluation.stand_in_agent import StandInAgent
from onesearch.market.shopping_needs import ShoppingNeed
from onesearch.search.engine import SearchEngine
from onesearch.understanding.llm_producer import LLMSettings

PAGE: Final = 5
_VIEWS_PER_SESSION: Final = 1.6  # page views of a session of the market, about; a few more are drawn


def sessions_of(
    engine: SearchEngine,
    data: Path,
    sessions: int,
    budget: int = 6,
    stream: int = 1,
    make: MakeAgent | None = None,
    newcomers: int = 0,
) -> tuple[list[Session], Laboratory]:
    """Sessions of agents after the end of a market's log, and the laboratory that has their needs.

    Args:
        engine: what they search with.
        data: folder of the market's data set.
        sessions: how many.
        budget: searches of a session, at most.
        stream: another one gives other needs of the same shoppers.
        make: the agent of each session; by default the stand-in.
        newcomers: shoppers beside those of the log, as of :class:`Laboratory`.

    Raises:
        FileNotFoundError: the data is no market's.
        ValueError: there are fewer needs than sessions, which no setting of ours can bring about.
    """
    laboratory = Laboratory(data, round(sessions * _VIEWS_PER_SESSION * 1.3) + 50, newcomers, stream)
    rows = need_rows(laboratory, sessions)
    if len(rows) < sessions:
        raise ValueError(f"{len(rows)} needs were drawn for {sessions} sessions; ask for fewer")
    # Rows of the market's items, which the run's catalogue numbers as well, whatever was added to it since.
    number = {f"i{row}": row for row in range(len(laboratory.truth.catalogue))}
    return shop(engine, Shoppers(laboratory, number), rows, make or stand_in(), budget), laboratory


def stand_in(k: int = PAGE) -> MakeAgent:
    """Agents by rules."""
    return lambda need, user: StandInAgent(need, user, k)


def by_model(settings: LLMSettings, k: int = PAGE) -> tuple[MakeAgent, Callable[[], dict[str, Any]]]:
    """Agents by a language model, and what it has cost so far."""
    model = ChatModel(settings)

    def make(need: ShoppingNeed, user: str | None) -> Agent:
        return ModelAgent(model, need, user, k)

    return make, lambda: {"model": settings.model, "answers": model.calls, "refused_calls": model.refused}


def simulate(
    engine: SearchEngine,
    data: Path,
    sessions: int,
    budget: int = 6,
    stream: int = 1,
    make: MakeAgent | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Figures of :func:`sessions_of`; ``out`` gets the searches as page views to learn from (Parquet)."""
    found, laboratory = sessions_of(engine, data, sessions, budget, stream, make)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = out.with_name(out.name + ".part")
        session_page_views(found, laboratory, f"a{stream}-").write_parquet(unfinished)
        unfinished.replace(out)
    lengths = np.bincount([len(one.searches) for one in found if one.ordered is not None], minlength=budget + 1)
    return {
        "engine": engine.name,
        "budget": budget,
        "stream": stream,
        **figures(session_sums(found, budget)),
        "orders_by_searches": lengths[1:].tolist(),
    }
