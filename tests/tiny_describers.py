"""Tiny randomly initialised models that describe images, saved to disk as real ones are."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GPT2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    OPTConfig,
    PreTrainedTokenizerFast,
    T5Config,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessorPil,
)

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
_TEXT = (
    "a the this that one red green blue grey pale bright small large dog cat bird fish tree house field sky river road "
    "with on under over near and in of runs sits sleeps stands looks shows image picture photo detail short sentence "
    "write describe about Write Describe one-sentence description image. detail. USER: ASSISTANT:"
)
WORDS = _TEXT.split()
CHAT_TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
IMAGE_SIDE = 32
_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_VISION = {**_TOWER, "image_size": IMAGE_SIDE, "patch_size": 16}
_SIZE = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}


def tokenizer(*, begins: bool, ends: bool) -> PreTrainedTokenizerFast:
    """Words at white space; `<s>` before or `</s>` behind each text as the model's own tokenizer does."""
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *WORDS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{'<s> ' if begins else ''}$A{' </s>' if ends else ''}",
        special_tokens=[(token, vocabulary[token]) for token in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )


def _text_ids() -> dict[str, int]:
    return {"vocab_size": len(SPECIAL) + len(WORDS), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _lively(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights so large that texts differ between images and between prompts, and are no single word over and over.

    Of the special tokens only the end is said.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                scale = 1.0 if "embed" in name or "shared" in name or "query_tokens" in name else 0.3
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        words = model.get_output_embeddings().weight
        words[[number for number, token in enumerate(SPECIAL) if token != "</s>"]] = 0
    return model.eval()


def write_blip2(folder: Path, kind: str, seed: int = 0) -> Path:
    """A BLIP-2 whose language model is `opt` or `t5`."""
    if kind == "opt":
        text = OPTConfig(
            **_text_ids(),
            hidden_size=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            word_embed_proj_dim=32,
            max_position_embeddings=256,
        )
    else:
        text = T5Config(**_text_ids(), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0)
    config = Blip2Config(
        vision_config=_VISION,
        qformer_config={**_TOWER, "encoder_hidden_size": 32, "vocab_size": 8, "cross_attention_frequency": 1},
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=SPECIAL.index("<image>"),
    )
    _lively(Blip2ForConditionalGeneration(config), seed).save_pretrained(folder)
    words = tokenizer(begins=kind == "opt", ends=kind == "t5")
    Blip2Processor(BlipImageProcessorPil(size=_SIZE), words, num_query_tokens=4).save_pretrained(folder)
    return folder


def write_llava(folder: Path, seed: int = 0) -> Path:
    """A LLaVA with CLIP's vision tower, Llama and a chat template."""
    text = LlamaConfig(**_text_ids(), **_TOWER, max_position_embeddings=256)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_VISION),
        text_config=text,
        image_token_index=SPECIAL.index("<image>"),
        vision_feature_layer=-1,
    )
    _lively(LlavaForConditionalGeneration(config), seed).save_pretrained(folder)
    LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIDE}, crop_size=_SIZE),
        tokenizer(begins=True, ends=False),
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    return folder


def write_captioner(folder: Path, seed: int = 0) -> Path:
    """An image-to-text model without a processor of its own, as the older ones are: ViT and GPT-2."""
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(**_VISION), GPT2Config(**_text_ids(), n_embd=32, n_layer=2, n_head=4, n_positions=64)
    )
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    _lively(VisionEncoderDecoderModel(config), seed).save_pretrained(folder)
    ViTImageProcessorPil(size=_SIZE).save_pretrained(folder)
    tokenizer(begins=True, ends=False).save_pretrained(folder)
    return folder
