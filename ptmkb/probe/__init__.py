"""Probes: build each catalogued model, run it on sample inputs, and measure whether what its entry claims is so.

torch is imported only when a probe runs; the names here, the record of results and the list of measures work without it.
"""
