"""Settings that hold for all tests; they come before any test imports torch or Prefect."""

from vlpipe.pipelines.settings import apply_offline_settings, apply_thread_settings

apply_offline_settings()
apply_thread_settings()
