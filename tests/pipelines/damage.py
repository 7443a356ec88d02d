"""What can happen to a file between two runs."""

import random


def every_damage(data):
    """Yield the file with any one bit flipped, cut off at any place, and empty."""
    for bit in range(8 * len(data)):
        yield flipped(data, bit)
    for size in range(len(data)):
        yield data[:size]


def flipped(data, bit):
    """Return the file with one bit flipped."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def some_damage(data, seed):
    """Return the file with its first, its last or any bit flipped, cut somewhere, or empty."""
    rng = random.Random(f"{seed} {len(data)}")
    last = 8 * len(data) - 1
    ways = [
        lambda: flipped(data, rng.randrange(last + 1)),
        lambda: data[: rng.randrange(len(data))],
        lambda: flipped(data, 0),
        lambda: b"",
        lambda: flipped(data, last),
        lambda: data[:-1],
    ]
    return ways[seed % len(ways)]()
