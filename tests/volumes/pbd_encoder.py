"""A slow encoder of v3dpbd streams, for round trips: bits are strings, and the kinds of runs are drawn at random."""

import random

RUNS_8 = {"literal": (0, 33), "2": (32, 95), "repeat": (127, 128)}
RUNS_16 = {"literal": (-1, 32), "3": (31, 48), "4": (79, 103), "5": (182, 40), "repeat": (222, 33)}
"""Per kind: the code is offset + count (literals: count - 1), and the longest run."""


def encode(values, itemsize, byte_order, seed):
    """Pack a list of integers: at each place one of the runs that can hold what follows, of a random length."""
    chance = random.Random(seed)
    packed, at, prior = bytearray(), 0, 0
    runs = RUNS_8 if itemsize == 1 else RUNS_16
    while at < len(values):
        fits = {kind: _fitting(values, at, prior, kind, most, itemsize) for kind, (_, most) in runs.items()}
        kind = chance.choice([k for k, n in fits.items() if n])
        count = chance.randint(1, fits[kind])
        part = values[at : at + count]
        offset = runs[kind][0]
        packed.append(count - 1 if kind == "literal" else offset + count)
        if kind == "literal":
            packed += b"".join(v.to_bytes(itemsize, byte_order) for v in part)
        elif kind == "repeat":
            packed += part[0].to_bytes(itemsize, byte_order)
        else:
            steps = [b - a for a, b in zip([prior, *part], part, strict=False)]
            packed += _pack_2(steps) if kind == "2" else _pack_wide(steps, int(kind))
        at, prior = at + count, part[-1]
    return bytes(packed)


def _fitting(values, at, prior, kind, most, itemsize):
    """How many of the next values a run of a kind can hold."""
    if kind == "literal":
        return min(most, len(values) - at)
    low, high = {"2": (-1, 2), "3": (-3, 4), "4": (-7, 8), "5": (-15, 16), "repeat": (0, 0)}[kind]
    before = values[at] if kind == "repeat" else prior
    count = 0
    for value in values[at : at + most]:
        if not low <= value - before <= high:
            break
        before = value
        count += 1
    return count


def _pack_2(steps):
    codes = [3 if s == -1 else s for s in steps]
    codes += [0] * (-len(codes) % 4)
    return bytes(sum(c << (2 * n) for n, c in enumerate(codes[i : i + 4])) for i in range(0, len(codes), 4))


def _pack_wide(steps, bits):
    turn = 1 << (bits - 1)
    text = "".join(format(s if s >= 0 else turn - s, f"0{bits}b") for s in steps)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
