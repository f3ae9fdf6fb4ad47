"""A knowledge base of pre-trained models: catalogue, lineage, annotated source, and probes that measure its claims."""

__version__ = "0.1.0"
