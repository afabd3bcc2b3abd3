"""Work done ahead of its use."""

import threading

import pytest

from mindspore_gpt4image.data.read_ahead import read_ahead


@pytest.mark.parametrize(("items", "threads", "ahead"), [(0, 2, 4), (3, 2, 4), (50, 1, 1), (50, 3, 7)])
def test_all_items_in_order(items, threads, ahead):
    assert list(read_ahead(lambda n: n * n, range(items), threads, ahead)) == [(n, n * n) for n in range(items)]


def test_no_more_than_asked_for_is_taken_ahead():
    taken = []

    def items():
        for n in range(100):
            taken.append(n)
            yield n

    results = read_ahead(lambda n: n, items(), threads=2, ahead=5)
    next(results)
    assert len(taken) == 5


def test_an_error_comes_where_the_item_stands_and_the_rest_is_dropped():
    started = threading.Event()

    def work(n):
        if n == 3:
            raise ValueError("three")
        if n > 20:
            started.set()
        return n

    results = read_ahead(work, range(100), threads=1, ahead=8)
    assert [next(results) for _ in range(3)] == [(n, n) for n in range(3)]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert not started.is_set()
