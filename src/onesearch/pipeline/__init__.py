"""From a configuration file to a finished run: the stages, what each reads and what each writes."""

from onesearch.pipeline.stages import evaluate_run, run_config, settings_of, stages_of, status_of

__all__ = ["evaluate_run", "run_config", "settings_of", "stages_of", "status_of"]
