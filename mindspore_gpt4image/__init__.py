"""GPT4Image on MindSpore: classifiers that learn from the descriptions of their training images."""

__version__ = "0.1.0"
