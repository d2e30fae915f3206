"""orchdb: the async data layer for agent orchestrators."""

__version__ = "0.1.0"
