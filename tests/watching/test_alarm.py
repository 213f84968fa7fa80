"""k of n with hysteresis, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sk_asd.watching._alarm import Alarm


def changes(margins, k, n, hysteresis=0.0):
    alarm = Alarm(k, n, hysteresis)
    found = [(i, alarm.push(i, margin)) for i, margin in enumerate(margins)]
    return [(i, change) for i, change in found if change], alarm


@pytest.mark.parametrize(
    ("margins", "expected"),
    [
        ([-1, -1, 1, -1], [(3, "alarm")]),
        ([-1, 1, 1, 1, -1, -1], []),  # the first is forgotten
        ([-1, -1, -1, 1, 1, 1], [(2, "alarm"), (4, "clear")]),
        ([-1, -1, -1, 0.4, 0.4, 0.4, 0.4], [(2, "alarm")]),  # not clearly normal
        ([-1, -1, -1, None, None, None, None, 1, 1, 1], [(2, "alarm"), (8, "clear")]),
        ([-1, -1, None, None, -1], []),
        ([-1, -1, None, -1], [(3, "alarm")]),
        ([0, 0, 0, 0], []),  # at the threshold is normal, as predict has it
    ],
)
def test_three_of_four(margins, expected):
    assert changes(margins, 3, 4, hysteresis=0.5)[0] == expected


def test_begins_with_the_first_abnormal_window():
    _, alarm = changes([1, -1, 1, -1], 2, 3)
    assert alarm.since == 1


@given(
    st.lists(st.sampled_from([-1.0, 0.2, 1.0, None]), max_size=40),
    st.integers(1, 5).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))),
    st.sampled_from([0.0, 0.5]),
)
def test_against_a_direct_count(margins, k_of_n, hysteresis):
    k, n = k_of_n
    found, _ = changes(margins, k, n, hysteresis)
    active, expected = False, []
    for i in range(len(margins)):
        last = [m for m in margins[max(0, i - n + 1) : i + 1] if m is not None]
        if not active and sum(m < 0 for m in last) >= k:
            active = True
            expected.append((i, "alarm"))
        elif active and sum(m >= hysteresis for m in last) >= n - k + 1:
            active = False
            expected.append((i, "clear"))
    assert found == expected
