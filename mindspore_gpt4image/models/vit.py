"""The plain Vision Transformer that DeiT trains."""

from typing import Optional

from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import initializer

from mindspore_gpt4image.models.drop_path import residual
from mindspore_gpt4image.models.initialisation import dense, truncated_normal


class Attention(nn.Cell):
    """Multi-head self-attention over [B, N, dim]."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.dim, self.heads = dim, heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = dense(dim, 3 * dim)
        self.proj = dense(dim, dim)

    def split_heads(self, x: Tensor) -> Tensor:
        """[B, N, dim] to [B, heads, N, dim / heads]."""
        x = x.reshape((-1, x.shape[1], self.heads, self.dim // self.heads))
        return ops.transpose(x, (0, 2, 1, 3))

    def construct(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        # Slices, because ONNX export has no Unstack.
        q = self.split_heads(qkv[:, :, : self.dim]) * self.scale
        k = self.split_heads(qkv[:, :, self.dim : 2 * self.dim])
        v = self.split_heads(qkv[:, :, 2 * self.dim :])
        similarity = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))
        # Half precision would lose the tail of the softmax.
        attention = ops.softmax(similarity.astype(mstype.float32), axis=-1).astype(v.dtype)
        out = ops.transpose(ops.matmul(attention, v), (0, 2, 1, 3))
        return self.proj(out.reshape((-1, x.shape[1], self.dim)))


class Mlp(nn.Cell):
    """Two dense layers around an exact GELU; `nn.GELU()` alone would be the tanh approximation."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = dense(dim, hidden)
        self.act = nn.GELU(approximate=False)
        self.fc2 = dense(hidden, dim)

    def construct(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Cell):
    """Attention and MLP, each with a normalisation before it and a residual around it."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm((dim,), epsilon=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm((dim,), epsilon=1e-6)
        self.mlp = Mlp(dim, 4 * dim)

    def construct(self, x: Tensor, keep: Optional[Tensor] = None) -> Tensor:
        x = residual(x, self.attn(self.norm1(x)), None if keep is None else keep[0])
        return residual(x, self.mlp(self.norm2(x)), None if keep is None else keep[1])


class PatchEmbed(nn.Cell):
    """[B, 3, H, W] to one token a patch, [B, H W / patch², dim]."""

    def __init__(self, dim: int, patch: int):
        super().__init__()
        self.dim = dim
        self.proj = nn.Conv2d(3, dim, patch, patch, pad_mode="valid", has_bias=True)

    def construct(self, images: Tensor) -> Tensor:
        x = self.proj(images)
        x = x.reshape((-1, self.dim, x.shape[2] * x.shape[3]))
        return ops.transpose(x, (0, 2, 1))


class VisionTransformer(nn.Cell):
    """ViT with 16x16 patches (Dosovitskiy et al., "An Image is Worth 16x16 Words") as DeiT trains it (Touvron et al.,
    "Training data-efficient image transformers"), without a distillation token, up to its feature.

    Args:
        image_size: height and width of the images, a multiple of 16; the position embedding depends on it.
        dim: width of a token.
        heads: attention heads.
        depth: blocks.

    Inputs:
        images: float32 [B, 3, image_size, image_size].
        keep: what `DropPath` draws, [depth, 2, B], or None.

    Outputs:
        [B, num_features], the normalised class token.
    """

    patch = 16
    branches = 2  # residual branches a block

    def __init__(self, image_size: int, dim: int, heads: int, depth: int = 12):
        super().__init__()
        tokens = 1 + (image_size // self.patch) ** 2
        self.num_features, self.num_blocks = dim, depth
        self.patch_embed = PatchEmbed(dim, self.patch)
        self.cls_token = Parameter(initializer(truncated_normal(), (1, 1, dim)), name="cls_token")
        self.pos_embed = Parameter(initializer(truncated_normal(), (1, tokens, dim)), name="pos_embed")
        self.blocks = nn.CellList([Block(dim, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm((dim,), epsilon=1e-6)

    def make_classifier(self, num_classes: int) -> nn.Dense:
        return dense(self.num_features, num_classes)

    def construct(self, images: Tensor, keep: Optional[Tensor] = None) -> Tensor:
        x = self.patch_embed(images)
        # One class token a row, spelt without the batch size: an export may leave that open.
        cls_token = x[:, :1] * 0 + self.cls_token
        x = ops.concat((cls_token, x), 1) + self.pos_embed
        for index, block in enumerate(self.blocks):
            x = block(x, None if keep is None else keep[index])
        return self.norm(x)[:, 0]
