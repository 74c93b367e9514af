"""Damaged copies of a model file: bits, lengths and offsets, as chance or malice might have it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np

Change = Callable[[bytearray, np.random.Generator], bytearray]


def bits(data: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(8, len(data)))] ^= 1 << int(rng.integers(8))
    return data


def cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: int(rng.integers(9, len(data)))]


def offset(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A word that looks like an offset or a length becomes another one."""
    words = len(data) // 4
    for _ in range(1000):
        at = 4 * int(rng.integers(0, words))
        if at != 4 and 0 < struct.unpack_from("<I", data, at)[0] < len(data):
            break
    values = (0, 1, 4, len(data), 0x7FFF_FFFC, 0x8000_0000, 0xFFFF_FFFF, int(rng.integers(2**32)))
    struct.pack_into("<I", data, at, values[int(rng.integers(len(values)))])
    return data


def vtable(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Short words: sizes of tables and places of their fields."""
    for _ in range(int(rng.integers(1, 4))):
        at = 2 * int(rng.integers(4, len(data) // 2))
        struct.pack_into("<H", data, at, int(rng.integers(2**16)))
    return data


def blank(data: bytearray, rng: np.random.Generator) -> bytearray:
    begin = int(rng.integers(8, len(data)))
    end = min(len(data), begin + int(rng.integers(1, 400)))
    data[begin:end] = bytes([int(rng.choice([0x00, 0xFF]))]) * (end - begin)
    return data


def moved(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A piece of the file lies where another one was."""
    size = int(rng.integers(4, 400))
    source, target = (int(n) for n in rng.integers(8, len(data) - size, 2))
    data[target : target + size] = data[source : source + size]
    return data


CHANGES: tuple[Change, ...] = (bits, cut, offset, offset, vtable, blank, moved)


def mutants(model: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged copies, the same for the same seed. Most keep the file's identifier."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        yield bytes(CHANGES[k % len(CHANGES)](bytearray(model), rng))
