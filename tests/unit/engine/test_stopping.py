from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.stopping import StopDetector, cut_at_stop, find_stop

TEXT = st.text(alphabet="ab é日😀", max_size=40)
STOP = st.text(alphabet="ab é日😀", min_size=1, max_size=5)


def naive(text: str, stops: Sequence[str]) -> tuple[int, int] | None:
    """Grow the text character by character until it ends in a stop; of several, the longest."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return end - max(map(len, ending)), end
    return None


class ByteTokens:
    """A tokenizer whose tokens are any pieces of the UTF-8 bytes, cut through characters too."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = pieces

    def decode(self, token_ids: Sequence[int]) -> str:
        return b"".join(self.pieces[one] for one in token_ids).decode(errors="replace")


@st.composite
def pieces(draw: st.DrawFn) -> list[bytes]:
    data = draw(TEXT).encode()
    cuts = sorted(draw(st.sets(st.integers(0, len(data)))) | {0, len(data)})
    return [data[start:end] for start, end in pairwise(cuts)]


@given(TEXT, st.lists(STOP, min_size=1, max_size=3))
def test_given_a_text_when_searched_then_it_equals_the_naive_search(
    text: str, stops: list[str]
) -> None:
    assert find_stop(text, stops) == naive(text, stops)


@given(pieces(), st.lists(STOP, min_size=1, max_size=3))
def test_given_any_token_boundaries_when_pushed_then_it_stops_with_the_first_stop(
    parts: list[bytes], stops: list[str]
) -> None:
    tokens = ByteTokens(parts)
    detector = StopDetector(tokens.decode, stops)
    stopped_at = next((n for n in range(len(parts)) if detector.push(n)), None)
    # The first token after which the whole characters so far hold a stop.
    text = [b"".join(parts[: n + 1]).decode(errors="ignore") for n in range(len(parts))]
    assert stopped_at == next((n for n, one in enumerate(text) if naive(one, stops)), None)
    if stopped_at is not None:
        full = b"".join(parts).decode()
        begun = naive(full, stops)
        assert begun is not None
        assert cut_at_stop(text[stopped_at], stops) == full[: begun[0]]


def test_given_two_stops_that_end_together_when_searched_then_the_longer_counts() -> None:
    assert find_stop("abcd", ["cd", "bcd"]) == (1, 4)


def test_given_a_stop_inside_a_longer_one_when_searched_then_the_first_complete_counts() -> None:
    assert cut_at_stop("abcd", ["abcd", "bc"]) == "a"


def test_given_no_stop_when_cut_then_the_text_is_whole() -> None:
    assert cut_at_stop("abc", []) == "abc"


def test_given_a_long_run_of_bytes_that_are_no_text_when_pushed_then_work_stays_bounded() -> None:
    widths: list[int] = []

    def decode(token_ids: Sequence[int]) -> str:
        widths.append(len(token_ids))
        return "\N{REPLACEMENT CHARACTER}" * len(token_ids)

    detector = StopDetector(decode, ["x"])
    assert not any(detector.push(n) for n in range(500))
    assert max(widths) < 30
