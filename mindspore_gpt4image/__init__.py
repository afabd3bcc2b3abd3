"""GPT4Image on MindSpore: classifiers that learn from the descriptions of their training images."""

import os

__version__ = "0.1.0"

# At its default level MindSpore prints hundreds of lines of warnings while it compiles a graph.
os.environ.setdefault("GLOG_v", "3")
