# Nothing here may import MindSpore: encoding and the card read stores without it.
from .store import EmbeddingStore

__all__ = ["EmbeddingStore"]
