from .store import EmbeddingStore

__all__ = ["EmbeddingStore"]
