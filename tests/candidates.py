"""Candidate bundles made from a factory fall model: good ones, worse ones, broken ones.

The flatbuffer is edited in place (https://flatbuffers.dev/internals/; field numbers as in
schema.fbs of TensorFlow), so that sizes stay and both engines load what comes out.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_rt.adapters.bundle_files import read_bundle, write_manifest
from edge_rt.adapters.tflite import Interpreter
from edge_rt.bundle import Bundle, open_bundle

CONV_2D, FULLY_CONNECTED = 3, 9
FOLDS = Path(__file__).parent / "data" / "fall_folds"


class Network:
    """The parts of a .tflite file that the edits below need."""

    def __init__(self, model: bytes) -> None:
        self.data = bytearray(model)
        root = self._u32(0)
        (graph,) = self._tables(root, 2)
        self._tensors = self._tables(graph, 0)
        self._buffers = self._tables(root, 4)
        codes = [self._code(table) for table in self._tables(root, 1)]
        layers: dict[int, list[list[int]]] = {CONV_2D: [], FULLY_CONNECTED: []}
        for operator in self._tables(graph, 3):
            code = codes[self._scalar(operator, 0, "I")]
            if code in layers:
                given = self._ints(operator, 1)
                layers[code].append([self._tensors[n] for n in given if n >= 0])
        self.convolutions, self.connected = layers[CONV_2D], layers[FULLY_CONNECTED]

    def scales(self, tensor: int) -> np.ndarray:
        """Writable view of a tensor's quantization scales."""
        return self._vector(self._child(tensor, 4), 2, np.dtype("<f4"))

    def values(self, tensor: int, dtype: str) -> np.ndarray:
        """Writable view of a constant tensor's values."""
        return self._vector(self._buffers[self._scalar(tensor, 2, "I")], 0, np.dtype(dtype), True)

    def _u32(self, at: int) -> int:
        return at + int(struct.unpack_from("<I", self.data, at)[0])

    def _field(self, table: int, number: int) -> int:
        vtable = table - struct.unpack_from("<i", self.data, table)[0]
        size = struct.unpack_from("<H", self.data, vtable)[0]
        at = 4 + 2 * number
        offset = struct.unpack_from("<H", self.data, vtable + at)[0] if at < size else 0
        return table + offset if offset else 0

    def _scalar(self, table: int, number: int, form: str) -> int:
        at = self._field(table, number)
        return int(struct.unpack_from("<" + form, self.data, at)[0]) if at else 0

    def _child(self, table: int, number: int) -> int:
        return self._u32(self._field(table, number))

    def _tables(self, table: int, number: int) -> list[int]:
        at = self._child(table, number)
        count = struct.unpack_from("<I", self.data, at)[0]
        return [self._u32(at + 4 + 4 * k) for k in range(count)]

    def _vector(self, table: int, number: int, dtype: np.dtype, raw: bool = False) -> np.ndarray:
        at = self._child(table, number)
        count = struct.unpack_from("<I", self.data, at)[0]
        if raw:
            count //= dtype.itemsize
        return np.frombuffer(self.data, dtype, count, at + 4)

    def _ints(self, table: int, number: int) -> list[int]:
        return [int(n) for n in self._vector(table, number, np.dtype("<i4"))]

    def _code(self, table: int) -> int:
        return max(self._scalar(table, 0, "b"), self._scalar(table, 3, "i"))


Edit = Callable[[bytes], bytes]


def shifted(logits: float) -> Edit:
    """Every score moved by so much: less or more sensitive all over."""

    def edit(model: bytes) -> bytes:
        network = Network(model)
        _, _, bias = network.convolutions[-1]
        network.values(bias, "<i4")[:] += round(logits / float(network.scales(bias)[0]))
        return bytes(network.data)

    return edit


def scaled(factor: float) -> Edit:
    """Every score multiplied, as far as the output tensor can hold it."""

    def edit(model: bytes) -> bytes:
        network = Network(model)
        _, weights, bias = network.convolutions[-1]
        network.scales(weights)[:] *= factor
        network.scales(bias)[:] *= factor
        return bytes(network.data)

    return edit


def input_scaled(factor: float) -> Edit:
    """What the network sees is multiplied: it was made for other units."""

    def edit(model: bytes) -> bytes:
        network = Network(model)
        _, weights, bias = network.convolutions[0]
        network.scales(weights)[:] *= factor
        network.scales(bias)[:] *= factor
        values = network.values(bias, "<i4")
        values[:] = np.clip(np.rint(values / factor), -(2**31), 2**31 - 1)
        return bytes(network.data)

    return edit


def coarser(step: int) -> Edit:
    """Weights rounded to multiples of `step`: quantized to fewer bits."""

    def edit(model: bytes) -> bytes:
        network = Network(model)
        for _, weights, _ in network.convolutions:
            values = network.values(weights, "i1")
            values[:] = np.clip(np.rint(values / step) * step, -127, 127)
        return bytes(network.data)

    return edit


def turned(model: bytes) -> bytes:
    """The outputs of an embedder in another order: as good as before, in a space of its own."""
    network = Network(model)
    ((_, weights),) = network.connected
    scales = network.scales(weights)
    rows = network.values(weights, "i1").reshape(len(scales), -1)
    rows[:] = np.roll(rows, 1, axis=0)
    scales[:] = np.roll(scales, 1)
    return bytes(network.data)


def constant(model: bytes) -> bytes:
    """An embedder to whom everybody is the same."""
    network = Network(model)
    ((_, weights),) = network.connected
    network.values(weights, "i1")[:] = 0
    return bytes(network.data)


def fold(number: int) -> Edit:
    """A network of the same kind, trained without one fifth of the people."""
    return lambda model: (FOLDS / f"fold{number}.tflite").read_bytes()


def same(model: bytes) -> bytes:
    """The model itself."""
    return model


GOOD: dict[str, Edit] = {
    "same": same,
    **{f"fold{k}": fold(k) for k in range(5)},
    "int7": coarser(2),
}
NEVER, ALWAYS = shifted(-25.0), shifted(25.0)


def variant(bundle: Bundle, edit: Edit, engine: str = "auto") -> Bundle:
    """The bundle with an edited model, in memory."""
    return bundle._replace(interpreter=Interpreter(edit(bundle.files.model), engine))


def write_candidate(folder: Path, source: Path, edit: Edit, **changes: Any) -> Path:
    """A whole bundle with an edited model, as a publisher would make it, golden vectors included.

    changes: keys of the manifest
    """
    shutil.copytree(source, folder)
    files = read_bundle(source)
    (folder / files.manifest.model).write_bytes(edit(files.model))
    manifest = {**msgspec.to_builtins(files.manifest), **changes}
    del manifest["files"]
    write_manifest(folder, manifest)
    _renew_golden(folder)
    return folder


def _renew_golden(folder: Path) -> None:
    bundle = open_bundle(folder)
    path = folder / bundle.manifest.golden.file
    with np.load(path) as arrays:
        inputs = arrays["input_0"]
    outputs = [bundle.interpreter.invoke(raw[np.newaxis]) for raw in inputs]
    several = {
        f"output_{k}": np.stack([out[k][0] for out in outputs]) for k in range(len(outputs[0]))
    }
    np.savez(path, input_0=inputs, **several)
    manifest = msgspec.to_builtins(bundle.manifest)
    del manifest["files"]
    write_manifest(folder, manifest)
