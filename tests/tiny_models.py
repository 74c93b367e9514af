"""TFLite models and bundles made by hand, a few hundred bytes each: sound ones and rogues.

A flatbuffer (https://flatbuffers.dev/internals/) is written front to back: a table is its vtable,
its inline fields, then its children, each reached by a positive offset. Field numbers are those of
schema.fbs in the TensorFlow repository.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_rt.adapters.bundle_files import write_manifest

FLOAT32, INT8 = 0, 9  # TensorType
MAX_POOL_2D, FULLY_CONNECTED, RELU, CUSTOM = 17, 9, 19, 32  # BuiltinOperator
POOL_OPTIONS, FULLY_CONNECTED_OPTIONS = 5, 8  # BuiltinOptions


class Scalar(NamedTuple):
    """A number stored inline."""

    format: str
    value: float


class Numbers(NamedTuple):
    """A vector of numbers."""

    format: str
    values: Sequence[float] | bytes


Table = dict[int, Any]  # field number -> Scalar, Numbers, str, Table or list of Tables


def flatbuffer(root: Table) -> bytes:
    out = bytearray(struct.pack("<I4s", 0, b"TFL3"))
    _point(out, 0, _table(out, root))
    return bytes(out)


def _align(out: bytearray, size: int, ahead: int = 0) -> None:
    out.extend(bytes(-(len(out) + ahead) % size))


def _point(out: bytearray, where: int, target: int) -> None:
    struct.pack_into("<I", out, where, target - where)


def _table(out: bytearray, fields: Table) -> int:
    count = max(fields, default=-1) + 1
    places, size = {}, 4
    for number, value in fields.items():
        width = struct.calcsize(value.format) if isinstance(value, Scalar) else 4
        size += -size % width
        places[number], size = size, size + width
    _align(out, 8, ahead=4 + 2 * count)
    vtable = len(out)
    out += struct.pack("<HH", 4 + 2 * count, size)
    out += struct.pack(f"<{count}H", *(places.get(n, 0) for n in range(count)))
    table = len(out)
    out += struct.pack("<i", table - vtable) + bytes(size - 4)
    for number, value in fields.items():
        where = table + places[number]
        if isinstance(value, Scalar):
            struct.pack_into("<" + value.format, out, where, value.value)
        else:
            _point(out, where, _child(out, value))
    return table


def _child(out: bytearray, value: Any) -> int:
    if isinstance(value, dict):
        return _table(out, value)
    if isinstance(value, str):
        _align(out, 4)
        start, text = len(out), value.encode()
        out += struct.pack("<I", len(text)) + text + b"\0"
        return start
    if isinstance(value, Numbers):
        _align(out, 16, ahead=4)
        start = len(out)
        out += struct.pack("<I", len(value.values))
        out += struct.pack(f"<{len(value.values)}{value.format}", *value.values)
        return start
    _align(out, 4)
    start = len(out)
    out += struct.pack("<I", len(value)) + bytes(4 * len(value))
    for k, item in enumerate(value):
        _point(out, start + 4 + 4 * k, _table(out, item))
    return start


def _tensor(name: str, shape: Sequence[int], buffer: int = 0) -> Table:
    return {
        0: Numbers("i", shape),
        1: Scalar("b", FLOAT32),
        2: Scalar("I", buffer),
        3: name,
    }


def _operator(opcode: int, inputs: Sequence[int], output: int, options: Table) -> Table:
    return {
        0: Scalar("I", opcode),
        1: Numbers("i", inputs),
        2: Numbers("i", [output]),
        **options,
    }


def _opcode(builtin: int, custom: str = "") -> Table:
    code: Table = {0: Scalar("b", builtin), 2: Scalar("i", 1), 3: Scalar("i", builtin)}
    return {**code, 1: custom} if custom else code


def _model(
    opcodes: list[Table], tensors: list[Table], operators: list[Table], weights: bytes
) -> bytes:
    output = len(tensors) - 1
    graph: Table = {
        0: tensors,
        1: Numbers("i", [0]),
        2: Numbers("i", [output]),
        3: operators,
    }
    buffers: list[Table] = [{}, {0: Numbers("B", weights)}]
    return flatbuffer({0: Scalar("I", 3), 1: opcodes, 2: [graph], 3: "tiny", 4: buffers})


def scorer(window: int = 8, channels: int = 3) -> bytes:
    """Sum of a float window (1, 1, window, channels) -> (1, 1)."""
    count = window * channels
    tensors = [
        _tensor("window", (1, 1, window, channels)),
        _tensor("weights", (1, count), 1),
        _tensor("score", (1, 1)),
    ]
    dense = {3: Scalar("B", FULLY_CONNECTED_OPTIONS), 4: {0: Scalar("b", 0)}}
    ones = np.ones(count, np.float32).tobytes()
    operator = _operator(0, [0, 1, -1], 2, dense)
    return _model([_opcode(FULLY_CONNECTED)], tensors, [operator], ones)


def endless(window: int, channels: int = 4) -> bytes:
    """A scorer that first pools each sample with half of all others: window squared steps."""
    count = window * channels
    shape = (1, 1, window, channels)
    tensors = [_tensor(f"pooled{k}", shape) for k in range(4)]
    tensors += [_tensor("weights", (1, count), 1), _tensor("score", (1, 1))]
    pool = {
        3: Scalar("B", POOL_OPTIONS),
        4: {
            0: Scalar("b", 0),
            1: Scalar("i", 1),
            2: Scalar("i", 1),
            3: Scalar("i", window // 2),
            4: Scalar("i", 1),
        },
    }
    dense = {3: Scalar("B", FULLY_CONNECTED_OPTIONS), 4: {0: Scalar("b", 0)}}
    operators = [_operator(0, [k], k + 1, pool) for k in range(3)]
    operators.append(_operator(1, [3, 4, -1], 5, dense))
    ones = np.ones(count, np.float32).tobytes()
    return _model([_opcode(MAX_POOL_2D), _opcode(FULLY_CONNECTED)], tensors, operators, ones)


def elementwise(shape: Sequence[int], custom: str = "") -> bytes:
    """One RELU over a float tensor of any size, or one custom op of that name."""
    opcode = _opcode(CUSTOM, custom) if custom else _opcode(RELU)
    tensors = [_tensor("before", shape), _tensor("after", shape)]
    return _model([opcode], tensors, [_operator(0, [0], 1, {})], b"")


def bundle(
    folder: Path,
    model: bytes,
    window: int = 8,
    channels: Sequence[str] = ("x", "y", "z"),
    golden: float | None = None,
    budget_ms: float = 1000.0,
    threshold: tuple[float, float, float] = (1.0, 0.0, 2.0),
) -> Path:
    """A fall bundle around `model`.

    golden     the score it promises for a window of ones
    threshold  value, min and max
    """
    folder.mkdir(parents=True)
    (folder / "tiny.tflite").write_bytes(model)
    (folder / "CARD.md").write_text("# tiny\nMade by a test.\n")
    score = float(window * len(channels)) if golden is None else golden
    np.savez(
        folder / "golden.npz",
        input_0=np.ones((2, 1, window, len(channels)), np.float32),
        output_0=np.full((2, 1), score, np.float32),
    )
    write_manifest(
        folder,
        {
            "schema": 1,
            "task": "fall",
            "name": "tiny",
            "version": "0.1.0",
            "model": "tiny.tflite",
            "license": "Apache-2.0",
            "minimum_runtime": "0.1.0",
            "security_epoch": 0,
            "latency_budget_ms": budget_ms,
            "golden": {"file": "golden.npz", "tolerance": 0.01},
            "provenance": {"source": "a test", "script": "tests/tiny_models.py"},
            "input": {
                "kind": "window",
                "rate_hz": 50.0,
                "window": window,
                "hop": 4,
                "channels": list(channels),
            },
            "output": {"kind": "score"},
            "decision": {"threshold": dict(zip(("value", "min", "max"), threshold, strict=True))},
        },
    )
    return folder
