"""Runnable studies of the real code. They may use the probes and the source index; torch is imported only where a study runs."""
