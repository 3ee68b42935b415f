"""What a replica measures, given to Ray, whose agent on each machine shows it to Prometheus.

A scrape of ``/metrics`` reaches one replica, another one each time. Ray's agents have those of all, each with the name
of its replica.
"""

from collections.abc import Callable
from typing import Any

from onesearch.serving.service import Service


class PublishedMetrics:
    """One gauge of Ray per name at ``/metrics``.

    Gauges for counters and histograms, too: Ray's counters are told differences, and its histograms fill buckets of
    their own. To Prometheus a type is a remark; what is asked of the lines, such as ``rate``, is the same.

    Args:
        service: what is measured.
        gauge: makes a gauge of Ray from name, description and the names of its labels.
    """

    def __init__(self, service: Service, gauge: Callable[[str, str, tuple[str, ...]], Any]) -> None:
        self._service, self._gauge = service, gauge
        self._gauges: dict[str, Any] = {}

    def publish(self) -> None:
        """Set all to what they are now."""
        for family in self._service.measured().registry.collect():
            for name, labels, value, *_ in family.samples:
                if name.endswith("_created"):  # when a counter began, which nobody asks for
                    continue
                if name not in self._gauges:
                    self._gauges[name] = self._gauge(name, family.documentation, tuple(labels))
                self._gauges[name].set(value, dict(labels))
