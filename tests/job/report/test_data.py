"""The arithmetic of the report's data section."""

from hypothesis import given
from hypothesis import strategies as st

from job.report.data import BARS, histogram


def test_one_long_row_does_not_flatten_the_others() -> None:
    drawn = histogram("Tokens", {**dict.fromkeys(range(10, 20), 100), 9000: 1}, 1)
    assert [(bar.first, bar.last, bar.rows) for bar in drawn.bars] == [
        *((length, length, 100) for length in range(10, 20)),
        (20, None, 1),
    ]
    assert (drawn.smallest, drawn.median, drawn.p99, drawn.largest) == (10, 15, 19, 9000)
    assert drawn.bars[0].height == 100


@given(
    counts=st.dictionaries(st.integers(0, 3000), st.integers(1, 50), min_size=1, max_size=60),
    width=st.sampled_from([1, 10]),
)
def test_every_row_is_in_one_bar(counts: dict[int, int], width: int) -> None:
    drawn = histogram("Tokens", {length * width: rows for length, rows in counts.items()}, width)
    assert sum(bar.rows for bar in drawn.bars) == sum(counts.values())
    assert len(drawn.bars) <= BARS + 1
    assert max(bar.height for bar in drawn.bars) == 100
    assert all((bar.first - drawn.smallest) % width == 0 for bar in drawn.bars)
