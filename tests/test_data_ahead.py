"""Results in order, one by one, whatever the threads do; errors at their turn; no thread left."""

import threading
import time

import pytest

from robustjax.data.ahead import ahead


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_and_not_too_early(threads):
    begun = []

    def make(n):
        begun.append(n)
        time.sleep(0.001 * (n % 3))
        return n

    with ahead(make, range(20), depth=4, threads=threads) as results:
        for n in range(20):
            assert next(results) == n
            assert max(begun) <= n + 4
        assert next(results, None) is None


def test_an_error_is_raised_at_its_turn_and_no_thread_stays():
    before = threading.active_count()
    with ahead(lambda n: 1 / (2 - n), range(9), depth=3) as results:
        assert [next(results), next(results)] == [0.5, 1.0]
        with pytest.raises(ZeroDivisionError):
            next(results)
    assert threading.active_count() == before
