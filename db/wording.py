"""How messages put things."""


def count_of(number: int, thing: str) -> str:
    """`1 job`, `2,000 jobs`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
