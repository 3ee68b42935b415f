"""How long a run of several stages still takes: a forecast, corrected by what its finished stages took."""

import time
from collections.abc import Callable, Mapping
from typing import Final

_ENOUGH: Final = 30.0
"""Forecast seconds of finished stages from which on they correct the forecast of the others."""


class TimeLeft:
    """Seconds until a run is through.

    ::

        pace = what finished stages took / what was forecast for them
        left = pace x (forecast of the stages to come + what is left of the present one, never below 0)
    """

    def __init__(self, forecast: Mapping[str, float | None], clock: Callable[[], float] = time.monotonic) -> None:
        """``forecast``: seconds of each stage that will be built, None where nobody knows them."""
        self._forecast, self._clock = dict(forecast), clock
        self._taken = self._promised = 0.0
        self._now: tuple[str, float] | None = None

    def begin(self, stage: str) -> None:
        """A stage begins."""
        self._now = stage, self._clock()

    def finish(self, stage: str, built: bool = True) -> None:
        """A stage is there; one that was not built now in one go says nothing about the pace."""
        promised, begun = self._forecast.pop(stage, None), self._now
        if built and promised is not None and begun is not None and begun[0] == stage:
            self._taken += self._clock() - begun[1]
            self._promised += promised
        self._now = None

    def seconds(self) -> float:
        """Until the last stage whose time is forecast is through."""
        pace = self._taken / self._promised if self._promised >= _ENOUGH else 1.0
        left = dict(self._forecast)
        present = 0.0
        if self._now is not None:
            stage, begun = self._now
            present = max(pace * (left.pop(stage, None) or 0.0) - (self._clock() - begun), 0.0)
        return present + pace * sum(seconds or 0.0 for seconds in left.values())

    def __str__(self) -> str:
        """For a line of a log; "" where nothing is left."""
        if not self._forecast:
            return ""
        least = "at least " if None in self._forecast.values() else "about "
        return f"{least}{_rounded(self.seconds())} left of the run"


def _rounded(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
