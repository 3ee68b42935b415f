"""From a configuration file to a finished run: the stages, what each reads and what each writes.

The names are loaded when first asked for: who only runs stages of their own waits for no model library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onesearch.pipeline.stages import evaluate_run, run_config, settings_of, stages_of, status_of

__all__ = ["evaluate_run", "run_config", "settings_of", "stages_of", "status_of"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'onesearch.pipeline' has no attribute '{name}'")
    return getattr(import_module("onesearch.pipeline.stages"), name)
