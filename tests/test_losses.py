"""The losses in one process, compared with a plain twin, the released code and cases solved by hand."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from loss_twin import alignment_rows, cross_entropy, difference, gradient, unit_rows
from mindspore import Tensor, nn

from mindspore_gpt4image.losses import GPT4ImageLoss

GOLDEN = Path(__file__).parent / "golden" / "reference_losses.npz"
KINDS = ("infonce", "clip", "cosine")
WEIGHT, SMOOTHING = 0.3, 0.1
BATCH, DIM, CLASSES = 8, 16, 3


class Objective(nn.Cell):
    """The three losses, and the gradient of the total with respect to the inputs at the positions."""

    def __init__(self, loss, positions):
        super().__init__()
        self.gradient = ms.value_and_grad(loss, positions, None, has_aux=True)

    def construct(self, logits, labels, image_emb=None, text_emb=None, text_id=None, text_target=None):
        return self.gradient(logits, labels, image_emb, text_emb, text_id, text_target)


@cache
def objective(kind, tau, smoothing=SMOOTHING):
    """One cell each, so that one shape compiles once in this file. The baseline has no image embeddings."""
    return Objective(GPT4ImageLoss(kind, WEIGHT, tau, smoothing), 0 if kind == "none" else (0, 2))


def tensor(x, dtype=None):
    if x is None:
        return None
    x = np.asarray(x)
    return Tensor(x.astype(np.int32) if x.dtype.kind == "i" else x.astype(dtype or np.float32))


def align(kind, image_emb, text_emb, text_id=None, text_target=None, tau=0.5, dtype=None):
    """The alignment part alone: its value, and its gradient with respect to the image embeddings."""
    logits = np.zeros((len(image_emb), CLASSES))
    labels = np.zeros(len(image_emb), int)
    (_, _, value), (_, image_gradient) = objective(kind, tau)(
        *(tensor(x, dtype) for x in (logits, labels, image_emb, text_emb, text_id, text_target))
    )
    return SimpleNamespace(value=float(value), gradient=image_gradient.asnumpy() / WEIGHT)


def random_batch(seed=0, batch=BATCH, dim=DIM):
    """Image embeddings of different lengths, and normalised texts, as float32 holds them."""
    rng = np.random.default_rng(seed)
    image_emb = rng.standard_normal((batch, dim)) * rng.uniform(0.2, 5, (batch, 1))
    return image_emb.astype(np.float32), unit_rows(rng.standard_normal((batch, dim))).astype(np.float32)


def mixed(text_emb, lam=0.7):
    """What images are pulled to that were mixed with those of the batch reversed."""
    return (lam * text_emb + (1 - lam) * text_emb[::-1]).astype(np.float32)


# Against the twin

TEXT_IDS = {
    "different": np.arange(BATCH),
    "rows 0 and 3 equal": np.array([7, 1, 2, 7, 4, 5, 6, 0]),
    "three pairs": np.array([1, 2, 3, 3, 2, 1, 0, 9]),
    "rows without text": np.array([0, -1, 2, 3, -1, 5, 6, -1]),
    "equal and without": np.array([4, -1, 4, 4, -1, 5, 5, 0]),
    "one row left": np.array([-1, -1, -1, 8, -1, -1, -1, -1]),
}


@pytest.mark.parametrize("is_mixed", [False, True], ids=["plain", "mixed"])
@pytest.mark.parametrize("kind", KINDS)
def test_alignment_equals_the_twin(kind, is_mixed):
    image_emb, text_emb = random_batch()
    target = mixed(text_emb) if is_mixed else None
    for name, text_id in {"none": None, **TEXT_IDS}.items():

        def twin(images, text_id=text_id):
            return alignment_rows(kind, images, text_emb, text_id, target).mean()

        if name == "one row left" and not is_mixed and kind != "cosine":
            continue  # exactly 0: see test_nothing_to_tell_apart_gives_zero
        actual = align(kind, image_emb, text_emb, text_id, target)
        assert difference(actual.value, twin(image_emb)) < 1e-5, name
        assert difference(actual.gradient, gradient(twin, image_emb)) < 1e-5, name


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_cross_entropy_equals_the_twin(labels, smoothing):
    rng = np.random.default_rng(1)
    logits = (3 * rng.standard_normal((BATCH, 5))).astype(np.float32)
    labels = rng.integers(0, 5, BATCH) if labels == "hard" else rng.dirichlet(np.ones(5), BATCH).astype(np.float32)
    for shift in (0, 50000):  # exp(50000) would be infinite
        logits[0] += shift
        (total, ce, alignment), logits_gradient = objective("none", 0.5, smoothing)(tensor(logits), tensor(labels))
        assert difference(float(ce), cross_entropy(logits, labels, smoothing)) < 1e-5
        expected = gradient(lambda x: cross_entropy(x, labels, smoothing), logits, step=1e-4 if shift else 1e-6)
        assert difference(logits_gradient.asnumpy(), expected) < 1e-5
        assert float(total) == float(ce)
        assert float(alignment) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_total_is_cross_entropy_plus_weighted_alignment(kind):
    image_emb, text_emb = random_batch()
    logits = np.random.default_rng(2).standard_normal((BATCH, CLASSES)).astype(np.float32)
    labels = np.arange(BATCH) % CLASSES
    (total, ce, alignment), (logits_gradient, image_gradient) = objective(kind, 0.5)(
        tensor(logits), tensor(labels), tensor(image_emb), tensor(text_emb)
    )
    expected_ce = cross_entropy(logits, labels, SMOOTHING)
    expected_alignment = alignment_rows(kind, image_emb, text_emb).mean()
    assert difference(float(ce), expected_ce) < 1e-5
    assert difference(float(alignment), expected_alignment) < 1e-5
    assert difference(float(total), expected_ce + WEIGHT * expected_alignment) < 1e-5
    expected = gradient(lambda x: cross_entropy(x, labels, SMOOTHING), logits)
    assert difference(logits_gradient.asnumpy(), expected) < 1e-5
    expected = gradient(lambda x: WEIGHT * alignment_rows(kind, x, text_emb).mean(), image_emb)
    assert difference(image_gradient.asnumpy(), expected) < 1e-5


def test_the_baseline_reads_no_texts():
    """Nor image embeddings: NaN in all of them changes nothing."""
    logits, labels = tensor(np.eye(BATCH, CLASSES)), tensor(np.zeros(BATCH, int))
    broken = tensor(np.full((BATCH, DIM), np.nan))
    (expected, _, _), expected_gradient = objective("none", 0.5)(logits, labels)
    (total, ce, alignment), logits_gradient = objective("none", 0.5)(
        logits, labels, broken, broken, tensor(np.full(BATCH, -1)), broken
    )
    assert difference(float(expected), cross_entropy(logits.asnumpy(), labels.asnumpy(), SMOOTHING)) < 1e-5
    assert float(total) == float(ce) == float(expected)
    assert float(alignment) == 0
    assert np.array_equal(logits_gradient.asnumpy(), expected_gradient.asnumpy())


# Against the released code


@pytest.mark.parametrize("case", range(4))
def test_released_code(case):
    """See golden/README.md: `ctr` and `byol` stay within a rank's rows, `clip` is the loss of all rows joined."""
    golden = np.load(GOLDEN)
    world_size, tau, image_emb, text_emb = (
        golden[f"case{case}_{key}"] for key in ("world_size", "temperature", "image_emb", "text_emb")
    )
    tau = float(tau)
    for kind, released in (("infonce", "ctr"), ("cosine", "byol")):
        losses, gradients = (golden[f"case{case}_{released}_{key}"] for key in ("loss_per_rank", "grad"))
        parts = [np.split(x, world_size) for x in (image_emb, text_emb, gradients)]
        for rank, (images, texts, expected) in enumerate(zip(*parts)):
            actual = align(kind, images, texts, tau=tau)
            assert difference(actual.value, losses[rank]) < 1e-5, (released, rank)
            assert difference(actual.gradient, expected) < 1e-5, (released, rank)
    actual = align("clip", image_emb, text_emb, tau=tau)
    assert difference(np.full(world_size, actual.value), golden[f"case{case}_clip_loss_per_rank"]) < 1e-5
    assert difference(actual.gradient, golden[f"case{case}_clip_grad"]) < 1e-5


# Solved by hand


def test_equal_embeddings_give_log_of_the_batch():
    """With z_i = t_j for all i, j every s_ij is 1/tau: log(B e^(1/tau)) - 1/tau = log B in both directions.

    The pull towards one's own text and the push from the mean of all texts cancel: the gradient is 0.
    """
    emb = np.tile(random_batch()[1][:1], (BATCH, 1))
    for kind in ("infonce", "clip"):
        actual = align(kind, 3 * emb, emb, np.arange(BATCH))
        assert actual.value == pytest.approx(np.log(BATCH), rel=1e-6), kind
        assert np.abs(actual.gradient).max() < 1e-6, kind


def test_rows_without_text_leave_the_sum_but_not_the_mean():
    """Equal embeddings again, M of B rows without text: the others see B - M texts each, so (B - M)/B · log(B - M).

    What stands in the rows without text is nobody's business.
    """
    emb = np.tile(random_batch()[1][:1], (BATCH, 1))
    text_id = np.array([0, -1, 2, 3, -1, 5, 6, -1])
    text_emb = np.where(text_id[:, None] < 0, np.nan, emb)
    for kind in ("infonce", "clip"):
        actual = align(kind, emb, text_emb, text_id)
        assert actual.value == pytest.approx(5 / 8 * np.log(5), rel=1e-6), kind
        assert np.abs(actual.gradient).max() < 1e-6, kind
    # Each of the five is at distance 0 from its text, or at 2 - 2 · (-1) = 4 from the opposite one.
    assert align("cosine", emb, text_emb, text_id).value == pytest.approx(0, abs=1e-6)
    assert align("cosine", -emb, text_emb, text_id).value == pytest.approx(5 / 8 * 4, rel=1e-6)


def test_orthogonal_pairs():
    """With z_i = t_i = e_i, s is 1/tau on the diagonal and 0 elsewhere: log(1 + (B - 1) e^(-1/tau)) both ways.

    Pulled to y_i = lam e_i + (1 - lam) e_j instead, the normaliser stays and z_i·y_i = lam:
    log(e^(1/tau) + B - 1) - lam/tau, and 2 - 2 lam for the cosine.
    """
    emb = np.eye(BATCH, DIM)
    text_id = np.arange(BATCH)
    expected = np.log(1 + (BATCH - 1) * np.exp(-2.0))
    for kind in ("infonce", "clip"):
        assert align(kind, 5 * emb, emb, text_id).value == pytest.approx(expected, rel=1e-6), kind
        assert align(kind, 5 * emb, emb, text_id, mixed(emb)).value == pytest.approx(
            np.log(np.exp(2.0) + BATCH - 1) - 0.7 * 2, rel=1e-6
        ), kind
    assert align("cosine", 5 * emb, emb, text_id).value == pytest.approx(0, abs=1e-6)
    assert align("cosine", 5 * emb, emb, text_id, mixed(emb)).value == pytest.approx(2 - 2 * 0.7, rel=1e-6)


def test_two_images_swapped():
    """Two rows of opposite texts t, -t and images that are swapped: s_ii = -1/tau, s_ij = 1/tau.

    log(e^(-1/tau) + e^(1/tau)) + 1/tau = log(1 + e^(2/tau)) in both directions; 2 - 2 · (-1) = 4 for the cosine.
    The six other rows have no text: 2/8 of it.
    """
    text_emb = np.eye(BATCH, DIM)
    text_emb[1] = -text_emb[0]
    text_id = np.array([0, 1, *[-1] * 6])
    for kind in ("infonce", "clip"):
        expected = 2 / 8 * np.log(1 + np.exp(4.0))
        assert align(kind, -text_emb, text_emb, text_id).value == pytest.approx(expected, rel=1e-6), kind
    assert align("cosine", -text_emb, text_emb, text_id).value == pytest.approx(2 / 8 * 4, rel=1e-6)


def test_nothing_to_tell_apart_gives_zero():
    """Where a row's own text is the only one left, log e^(s_ii) - s_ii = 0; the same when no row has a text."""
    image_emb, text_emb = random_batch()
    for kind in ("infonce", "clip"):
        one_image = align(kind, image_emb[:1], text_emb[:1])
        one_text = align(kind, image_emb, text_emb, np.full(BATCH, 5))
        one_row = align(kind, image_emb, text_emb, TEXT_IDS["one row left"])
        for actual in (one_image, one_text, one_row):
            assert abs(actual.value) < 1e-6, kind
            assert np.abs(actual.gradient).max() < 1e-6, kind
    for kind in KINDS:
        no_text = align(kind, image_emb, text_emb, np.full(BATCH, -1))
        assert no_text.value == 0, kind
        assert not no_text.gradient.any(), kind


def test_zero_vectors():
    """z_i = 0 makes all scores of image i 0. With all images zero the loss is log B (2 for the cosine), and what pulls
    image i is mean_j t_j - t_i over B tau: in "clip" the sum over texts j of p_ij t_j, p_ij = 1/B, is the same mean.
    """
    _, text_emb = random_batch()
    zero = np.zeros((BATCH, DIM))
    pull = (text_emb.mean(axis=0) - text_emb) / (BATCH * 0.5)
    for kind, value, expected in (
        ("infonce", np.log(BATCH), pull),
        ("clip", np.log(BATCH), pull),
        ("cosine", 2, -2 * text_emb / BATCH),
    ):
        actual = align(kind, zero, text_emb, np.arange(BATCH))
        assert actual.value == pytest.approx(value, rel=1e-6), kind
        assert difference(actual.gradient, expected) < 1e-5, kind


# The bad places


@pytest.mark.parametrize("kind", KINDS)
def test_length_of_an_embedding_does_not_matter(kind):
    """Lengths from 1e-10 to 1e30 give the values and, times the length, the gradients of length 1."""
    image_emb, text_emb = random_batch()
    unit_emb = unit_rows(image_emb)
    text_id = TEXT_IDS["three pairs"]
    lengths = np.array([1e-10, 1e-6, 1e-3, 1, 1e3, 1e6, 1e15, 1e30])[:, None]
    expected = align(kind, unit_emb, text_emb, text_id)
    actual = align(kind, unit_emb * lengths, text_emb, text_id)
    assert difference(actual.value, expected.value) < 1e-6
    assert difference(actual.gradient * lengths, expected.gradient) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_embeddings_stay_finite(kind):
    """Lengths up to the last that float32 holds, zero rows, and rows without text, all in one batch."""
    image_emb, text_emb = random_batch()
    lengths = np.array([0, 1e-38, 1e-30, 1e-13, 1e-12, 1e25, 1e38, 0])[:, None]
    for text_id in TEXT_IDS.values():
        actual = align(kind, unit_rows(image_emb) * lengths, text_emb, text_id)
        assert np.isfinite(actual.value)
        assert np.isfinite(actual.gradient).all()


@pytest.mark.parametrize("tau", [0.01, 10.0])
def test_extreme_temperatures(tau):
    """Scores reach 1/tau = 100: equal to the twin, masked and with rows without text, and finite with zero images."""
    image_emb, text_emb = random_batch()
    image_emb[2], image_emb[5] = text_emb[2], -text_emb[5]
    for name, text_id in TEXT_IDS.items():
        if name == "one row left":
            continue

        def twin(images, text_id=text_id):
            return alignment_rows("clip", images, text_emb, text_id, tau=tau).mean()

        actual = align("clip", image_emb, text_emb, text_id, tau=tau)
        assert difference(actual.value, twin(image_emb)) < 1e-5, name
        assert difference(actual.gradient, gradient(twin, image_emb)) < 1e-5, name
    for text_id in (np.arange(BATCH), np.full(BATCH, 3), np.full(BATCH, -1)):
        actual = align("clip", 0 * image_emb, text_emb, text_id, tau=tau)
        assert np.isfinite(actual.value)
        assert np.isfinite(actual.gradient).all()


@pytest.mark.parametrize("kind", KINDS)
def test_float16_inputs_are_computed_in_float32(kind):
    """So the value is as near to the twin's as with float32 inputs; only the gradient is rounded to float16.

    Squares of entries around 300 do not fit into float16.
    """
    image_emb, text_emb = (x.astype(np.float16) for x in random_batch())
    image_emb[::2] *= 300
    text_id = TEXT_IDS["equal and without"]

    def twin(images):
        return alignment_rows(kind, images, text_emb, text_id).mean()

    actual = align(kind, image_emb, text_emb, text_id, dtype=np.float16)
    assert difference(actual.value, twin(image_emb)) < 1e-5
    assert actual.gradient.dtype == np.float16
    assert difference(actual.gradient, gradient(twin, image_emb)) < 2e-3
    broken = image_emb * np.array([0, 1, 1, 0, 1, 1, 1, 0], np.float16)[:, None]
    for ids in (text_id, np.full(BATCH, 2), np.full(BATCH, -1)):
        actual = align(kind, broken, text_emb, ids, dtype=np.float16)
        assert np.isfinite(actual.value)
        assert np.isfinite(actual.gradient).all()


# What the constructor refuses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alignment": "byol"}, "alignment must be one of infonce, clip, cosine, none, not 'byol'"),
        ({"temperature": 0}, "temperature must be above 0, not 0"),
        ({"temperature": float("nan")}, "temperature must be above 0, not nan"),
        ({"weight": -0.1}, "weight must be at least 0, not -0.1"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, not 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing must be at least 0 and below 1, not -0.1"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError) as error:
        GPT4ImageLoss(**arguments)
    assert str(error.value) == message
