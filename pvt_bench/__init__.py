"""pvt-bench: from backbone and task to a row of numbers, in one command."""

__version__ = "0.1.0"
