"""The losses on real ranks: run as a script, this file is what each of them does.

A linear model of two outputs, the same on every rank, sees 12 rows, dealt to the ranks. Losses and gradients, averaged
over the ranks, must be those of one process with all 12.
"""

import re
import sys
from functools import cache
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from loss_twin import alignment_rows, cross_entropy, difference, unit_rows
from mindspore import Parameter, Tensor, nn
from mindspore.communication import get_group_size, get_rank, init
from ranks import run_on_ranks

from mindspore_gpt4image.losses import ALIGNMENTS, GPT4ImageLoss

GOLDEN = Path(__file__).parent / "golden" / "reference_losses.npz"
RELEASED_CASES = {2: "case2", 4: "case3"}  # by the number of ranks
LOCAL_OPERATORS = ("ReduceSum", "ReduceMax", "ReduceMean", "ReduceAll")
ROWS, PIXELS, FEATURES, DIM, CLASSES = 12, 7, 6, 8, 3
TAU = 0.2
# Equal texts within a rank and across ranks, however many there are; rows without text, up to a rank that has none.
MASKED = np.array([5, 1, 2, 5, 4, 3, 3, 7, 8, 9, 5, 1], np.int32)
WITHOUT_TEXT = np.array([-1, -1, -1, 3, 4, 5, -1, 7, 8, 9, 10, -1], np.int32)
BOTH = np.array([-1, -1, -1, 5, 4, 3, 3, 5, 8, -1, 4, 5], np.int32)
DIFFERENT = np.arange(ROWS, dtype=np.int32)
CASES = {  # text ids, lam of the targets; two kinds of graph in all, one without these inputs and one with them
    "plain": (None, None),
    "mixed": (DIFFERENT, 0.7),
    "masked": (MASKED, 1.0),
    "without text": (WITHOUT_TEXT, 1.0),
    "no text": (np.full(ROWS, -1, np.int32), 1.0),
    "masked and mixed": (BOTH, 0.7),
}
ORDERS = {"in order": np.arange(ROWS), "shuffled": np.random.default_rng(5).permutation(ROWS)}


def cases_of(kind):
    """The baseline reads no texts: one case is enough."""
    return CASES if kind != "none" else {"plain": CASES["plain"]}


def numbers():
    """The rows and the weights, the same in every process."""
    rng = np.random.default_rng(0)
    shapes = {
        "images": (ROWS, PIXELS),
        "trunk": (PIXELS, FEATURES),
        "classifier": (FEATURES, CLASSES),
        "projection": (FEATURES, DIM),
    }
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["texts"] = unit_rows(rng.standard_normal((ROWS, DIM))).astype(np.float32)
    arrays["labels"] = rng.integers(0, CLASSES, ROWS).astype(np.int32)
    return arrays


def targets(texts, lam):
    """What images are pulled to that were mixed with those of the batch reversed."""
    return None if lam is None else (lam * texts + (1 - lam) * texts[::-1]).astype(np.float32)


def tensor(array, rows):
    return None if array is None else Tensor(array[rows])


class Model(nn.Cell):
    def __init__(self, loss):
        super().__init__()
        arrays = numbers()
        self.trunk = Parameter(arrays["trunk"], name="trunk")
        self.classifier = Parameter(arrays["classifier"], name="classifier")
        self.projection = Parameter(arrays["projection"], name="projection")
        self.loss = loss

    def construct(self, images, labels, texts, text_id, text_target):
        features = images @ self.trunk
        return self.loss(features @ self.classifier, labels, features @ self.projection, texts, text_id, text_target)


def measure(rank, ranks):
    """What one of the ranks gets from its rows: arrays by "kind/case/order/…"."""
    arrays, results = numbers(), {}
    for kind in ALIGNMENTS:
        model = Model(GPT4ImageLoss(kind, weight=0.3, temperature=TAU))
        parameters = model.trainable_params()
        objective = ms.value_and_grad(model, None, parameters, has_aux=True)
        for case, (text_id, lam) in cases_of(kind).items():
            inputs = (arrays["images"], arrays["labels"], arrays["texts"], text_id, targets(arrays["texts"], lam))
            for order, positions in ORDERS.items():
                rows = np.split(positions, ranks)[rank]
                (total, ce, align), gradients = objective(*(tensor(x, rows) for x in inputs))
                key = f"{kind}/{case}/{order}"
                results.update({f"{key}/total": total, f"{key}/ce": ce, f"{key}/align": align})
                results.update({f"{key}/{p.name}": gradient for p, gradient in zip(parameters, gradients)})
    return {key: value.asnumpy() for key, value in results.items()}


def measure_released(rank, ranks):
    """`clip` on the rows that the released code gave this rank, where it has a case of so many ranks."""
    if ranks not in RELEASED_CASES:
        return {}
    golden, case = np.load(GOLDEN), RELEASED_CASES[ranks]
    image_emb, text_emb = (Tensor(np.split(golden[f"{case}_{key}"], ranks)[rank]) for key in ("image_emb", "text_emb"))
    logits, labels = ms.ops.zeros((len(image_emb), CLASSES)), ms.ops.zeros(len(image_emb), ms.int32)
    loss = GPT4ImageLoss("clip", weight=1.0, temperature=float(golden[f"{case}_temperature"]))
    (_, _, align), gradient = ms.value_and_grad(loss, 2, None, has_aux=True)(logits, labels, image_emb, text_emb)
    return {"released/align": align.asnumpy(), "released/gradient": gradient.asnumpy()}


@cache
def one_process():
    return measure(0, 1)


@pytest.fixture(
    scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 2, 3, pytest.param(4, marks=pytest.mark.slow)]
)
def launch(request, tmp_path_factory):
    """The folder of one launch on so many ranks, and what each of them measured."""
    folder = tmp_path_factory.mktemp("ranks")
    run_on_ranks(__file__, request.param, [folder], folder)
    return folder, [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(request.param)]


def average(results, key):
    return np.mean([result[key].astype(np.float64) for result in results], axis=0)


def test_average_over_ranks_equals_one_process(launch):
    _, results = launch
    for key, expected in one_process().items():
        assert difference(average(results, key), expected) < 1e-6, key


def test_values_of_a_rank_are_means_over_its_rows(launch):
    _, results = launch
    arrays = numbers()
    features = arrays["images"].astype(np.float64) @ arrays["trunk"]
    images, logits = features @ arrays["projection"], features @ arrays["classifier"]
    for kind in ALIGNMENTS:
        for case, (text_id, lam) in cases_of(kind).items():
            losses = alignment_rows(kind, images, arrays["texts"], text_id, targets(arrays["texts"], lam), TAU)
            for order, positions in ORDERS.items():
                for rank, rows in enumerate(np.split(positions, len(results))):
                    key = f"{kind}/{case}/{order}"
                    ce = cross_entropy(logits[rows], arrays["labels"][rows])
                    assert difference(results[rank][f"{key}/align"], losses[rows].mean()) < 1e-5, (key, rank)
                    assert difference(results[rank][f"{key}/ce"], ce) < 1e-5, (key, rank)


@pytest.mark.parametrize("launch", [2, pytest.param(4, marks=pytest.mark.slow)], indirect=True)
def test_released_code(launch):
    """Its loss of the joined batch is the mean of ours; its gradient, of which averaging keeps 1/R, is 1/R of ours."""
    _, results = launch
    ranks = len(results)
    golden, case = np.load(GOLDEN), RELEASED_CASES[ranks]
    gradients = np.concatenate([result["released/gradient"] for result in results])
    assert difference(average(results, "released/align"), golden[f"{case}_clip_loss_per_rank"][0]) < 1e-5
    assert difference(gradients, ranks * golden[f"{case}_clip_grad"]) < 1e-5


def test_collectives_of_the_compiled_graphs(launch):
    """One gather each of texts and ids; "clip" adds the images and the log-sum-exps. No backward communication."""
    folder, results = launch
    gathers = []
    for graph in (folder / "graphs").rglob("*_validate_*.ir"):
        collectives = re.findall(r"= (All\w+|Reduce\w+|Broadcast|Send|Receive)\(", graph.read_text())
        collectives = [name for name in collectives if name not in LOCAL_OPERATORS]
        assert set(collectives) <= {"AllGather"}, graph
        gathers.append(len(collectives))
    without_ids, with_ids = [0, 0, 1, 3], [0, 2, 4]  # none, cosine, infonce, clip
    expected = without_ids + with_ids if len(results) > 1 else [0] * 7
    assert sorted(gathers) == sorted(expected)


if __name__ == "__main__":
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    init()
    rank, ranks, folder = get_rank(), get_group_size(), Path(sys.argv[1])
    if rank == 0:
        ms.set_context(save_graphs=1, save_graphs_path=str(folder / "graphs"))
    results = measure(rank, ranks)
    ms.set_context(save_graphs=0)
    np.savez(folder / f"rank{rank}.npz", **results, **measure_released(rank, ranks))
