"""The losses of GPT4Image: cross-entropy plus the alignment of image features with text embeddings.

Notation, as in the paper and here: B rows on this rank, R ranks, N = R·B rows in all, k the dimension of the text
embeddings, tau the temperature. z_i is image i's embedding (projected, L2-normalised), t_j the text embedding of row j
(L2-normalised, a constant), y_i what image i is pulled to (t_i, or a mixture of two texts under mixup).

Every rank works on its own B images against all N texts. What is gathered is constant (texts, text ids, or images and
log-sum-exps behind a stop-gradient), so no gradient flows through a collective, and averaging the gradients over
ranks, as data-parallel training does, gives the gradient of one process with the joined batch.
"""

from typing import Optional

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from mindspore_gpt4image import distributed

ALIGNMENTS = ("infonce", "clip", "cosine", "none")

# Stands for minus infinity where a pair is left out: -inf would make 0 · inf = NaN in the text-to-image surrogate.
EXCLUDED = -1e30
# A vector without a larger entry counts as zero: it stays as it is, and its gradient stays finite.
SMALLEST_ENTRY = 1e-12


def normalize(x: Tensor) -> Tensor:
    """Rows of x, [B, k] of any float type, divided by their L2 norm, in float32. A zero row stays zero.

    Rows are divided by their largest entry first, a constant that changes neither the result nor the gradient:
    the squares of long vectors would overflow, and above a norm of 1e12 the cube in rsqrt's gradient underflows.
    """
    x = x.astype(mstype.float32)
    largest = ops.stop_gradient(x).abs().max(axis=1, keepdims=True)
    is_zero = largest < SMALLEST_ENTRY
    one = ops.ones_like(largest)
    x = x / ops.where(is_zero, one, largest)
    return x * ops.rsqrt(ops.where(is_zero, one, (x * x).sum(axis=1, keepdims=True)))


def split_logsumexp(scores: Tensor) -> tuple[Tensor, Tensor]:
    """log sum_j exp(s_ij) of each row of s, float32 [B, N], as two addends [B, 1]: max_j s_ij (constant) and the rest.

    Without its largest term the sum of the rest is at least 0, and log1p serves. MindSpore's log on CPU is less exact,
    and gives other last bits in other calls, by which the losses of a resumed run would differ.
    """
    largest = ops.stop_gradient(scores.max(axis=1, keepdims=True))
    return largest, ops.log1p(ops.exp(scores - largest).sum(axis=1, keepdims=True) - 1.0)


def logsumexp(scores: Tensor) -> Tensor:
    """log sum_j exp(s_ij) of each row of s, float32 [B, N]; returns [B]."""
    largest, rest = split_logsumexp(scores)
    return (largest + rest).squeeze(1)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Class indices, int32 [B], as probabilities, float32 [B, C]."""
    return ops.one_hot(labels, num_classes, ops.ones((), mstype.float32), ops.zeros((), mstype.float32))


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the batch of -sum_c q_c log softmax(logits)_c, with q = (1 - e) · label + e / C, e the smoothing.

    Args:
        logits: [B, C], any float type; the softmax is taken in float32.
        labels: class indices, int32 [B], or probabilities, float [B, C].
    """
    num_classes = logits.shape[1]
    logits = logits.astype(mstype.float32)
    largest, rest = split_logsumexp(logits)
    log_probabilities = (logits - largest) - rest
    if labels.ndim == 1:
        labels = one_hot(labels, num_classes)
    target = labels.astype(mstype.float32)
    if label_smoothing > 0:
        target = target * (1.0 - label_smoothing) + label_smoothing / num_classes
    return -(target * log_probabilities).sum(axis=1).mean()


def cosine_distance(image_emb: Tensor, text_target: Tensor) -> Tensor:
    """2 - 2 z_i·y_i for each row (the `byol` loss of the released code). Both [B, k]; returns [B]."""
    return 2.0 - 2.0 * (image_emb * text_target).sum(axis=1)


def image_to_text(similarity: Tensor, positive: Tensor) -> Tensor:
    """Eq. 2 for each image: log sum_j exp(s_ij) - z_i·y_i / tau.

    Args:
        similarity: s_ij = z_i·t_j / tau of this rank's images with all texts, [B, N]; excluded pairs hold `EXCLUDED`.
        positive: z_i·y_i / tau, [B].
    """
    return logsumexp(similarity) - positive


def text_to_image(similarity: Tensor, positive: Tensor, text_lse: Tensor, all_text_lse: Tensor) -> Tensor:
    """The other direction, for each text j of this rank: l_j - z_j·y_j / tau, l_j = log sum_i exp(s_ij) over N images.

    l_j holds the images of other ranks as constants, so its own gradient would miss what this rank's images do to the
    texts of the others. The surrogate sum_j p_ij s_ij, with p_ij = exp(s_ij - l_j) held constant, has exactly the
    gradient of sum_j l_j with respect to image i; its value is replaced by l_j.

    Args:
        similarity: s_ij of this rank's images with all texts, [B, N]; excluded pairs hold `EXCLUDED`.
        positive: z_j·y_j / tau, [B].
        text_lse: l_j of this rank's texts, [B].
        all_text_lse: l_j of all texts, [N].
    """
    share = ops.stop_gradient(ops.exp(similarity - all_text_lse))
    surrogate = (share * similarity).sum(axis=1)
    return surrogate - ops.stop_gradient(surrogate) + ops.stop_gradient(text_lse) - positive


def excluded_pairs(text_id: Tensor, all_text_id: Tensor, rank: int) -> Tensor:
    """Which of this rank's rows i and all rows j are no pair: equal ids at i != j, or no text (-1) on either side.

    Args:
        text_id: int32 [B].
        all_text_id: int32 [N]; rows rank·B … rank·B + B - 1 are this rank's.

    Returns:
        bool [B, N], the same for both directions.
    """
    batch, total = text_id.shape[0], all_text_id.shape[0]
    row, column = text_id.reshape(-1, 1), all_text_id.reshape(1, -1)
    position = (ops.arange(batch) + rank * batch).reshape(-1, 1)
    other = position != ops.arange(total).reshape(1, -1)
    return ops.logical_or(ops.logical_and(row == column, other), ops.logical_or(row < 0, column < 0))


class GPT4ImageLoss(nn.Cell):
    """L = L_ce + weight · L_align (Eq. 3), with means over the batch in place of sums.

    Args:
        alignment: "infonce" (Eq. 2, image to text), "clip" (mean of image to text and text to image),
            "cosine" (2 - 2 cos) or "none" (the baseline: L_align = 0).
        weight: lambda of Eq. 3.
        temperature: tau of Eq. 2.
        label_smoothing: see `cross_entropy`.

    Inputs:
        logits: float [B, C].
        labels: int32 [B], or float [B, C].
        image_emb: float [B, k], not normalised. Not read by "none", like all that follow.
        text_emb: float [B, k], L2-normalised.
        text_id: int32 [B] or None. Rows with equal ids are not each other's negatives; -1: the row has no text, it is
            out of the alignment and of everybody's negatives (its loss counts as 0 in the mean over B).
        text_target: float [B, k] or None (then text_emb): what each image is pulled to.

    Outputs:
        total, cross-entropy, alignment: float32 scalars, the means over this rank's rows. When
        `mindspore.communication` was initialised before the loss was made, negatives come from all ranks.

    Raises:
        ValueError: alignment is none of the four, temperature is not positive, weight or smoothing out of range.
    """

    def __init__(
        self, alignment: str = "infonce", weight: float = 0.3, temperature: float = 0.5, label_smoothing: float = 0.0
    ):
        super().__init__()
        if alignment not in ALIGNMENTS:
            raise ValueError(f"alignment must be one of {', '.join(ALIGNMENTS)}, not {alignment!r}")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        if not weight >= 0:
            raise ValueError(f"weight must be at least 0, not {weight}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, not {label_smoothing}")
        self.alignment = alignment
        self.weight = weight
        self.inverse_temperature = 1.0 / temperature
        self.label_smoothing = label_smoothing
        self.world_size = distributed.world_size()
        self.rank = distributed.rank()
        self.all_gather = ops.AllGather() if self.world_size > 1 else None

    def gather(self, x: Tensor) -> Tensor:
        """x of all ranks, [B, …] to [N, …], as a constant."""
        if self.world_size > 1:
            x = self.all_gather(ops.stop_gradient(x))
        return ops.stop_gradient(x)

    def similarity(self, rows: Tensor, columns: Tensor, excluded: Optional[Tensor]) -> Tensor:
        """rows·columnsᵀ / tau in float32, [B, N], with excluded pairs filled."""
        scores = ops.matmul(rows, columns.swapaxes(0, 1)) * self.inverse_temperature
        return scores if excluded is None else ops.where(excluded, ops.full_like(scores, EXCLUDED), scores)

    def align(self, image_emb, text_emb, text_id, text_target):
        """Mean alignment loss of this rank's rows."""
        image = normalize(image_emb)
        text = ops.stop_gradient(text_emb.astype(mstype.float32))
        target = text if text_target is None else ops.stop_gradient(text_target.astype(mstype.float32))
        if text_id is not None:
            # What stands in for a missing text must not reach anybody, and 0 times NaN would.
            missing = (text_id < 0).reshape(-1, 1)
            text = ops.where(missing, ops.zeros_like(text), text)
            target = ops.where(missing, ops.zeros_like(target), target)
        if self.alignment == "cosine":
            row_loss = cosine_distance(image, target)
        else:
            all_texts = self.gather(text)
            excluded = None if text_id is None else excluded_pairs(text_id, self.gather(text_id), self.rank)
            similarity = self.similarity(image, all_texts, excluded)
            positive = (image * target).sum(axis=1) * self.inverse_temperature
            row_loss = image_to_text(similarity, positive)
            if self.alignment == "clip":
                text_lse = logsumexp(self.similarity(text, self.gather(image), excluded))
                backward = text_to_image(similarity, positive, text_lse, self.gather(text_lse))
                row_loss = (row_loss + backward) * 0.5
        if text_id is not None:
            row_loss = ops.where(text_id < 0, ops.zeros_like(row_loss), row_loss)
        return row_loss.mean()

    def construct(self, logits, labels, image_emb=None, text_emb=None, text_id=None, text_target=None):
        ce = cross_entropy(logits, labels, self.label_smoothing)
        if self.alignment == "none":
            return ce, ce, ops.zeros_like(ce)
        align = self.align(image_emb, text_emb, text_id, text_target)
        return ce + self.weight * align, ce, align
