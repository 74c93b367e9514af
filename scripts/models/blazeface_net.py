"""BlazeFace short range as a Keras model, with the weights of the published .tflite file.

Architecture: Bazarevsky et al. 2019, arXiv:1907.05047, as the file's operators lay it out: a 5x5
stem, sixteen blocks (depthwise 3x3, pointwise, shortcut), heads on the 16x16 and 8x8 maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from face_common import (
    BOX_OFFSET,
    BOX_SCALE,
    SCORE_OFFSET,
    SCORE_SCALE,
    to_float,
    to_int8,
)
from tensorflow.lite.python import schema_py_generated as schema

SIZE = 128
# (channels, stride) of each block; the heads read the map before the last reduction and the last
BLOCKS = (
    *((c, 1) for c in (24, 28)),
    (32, 2),
    *((c, 1) for c in (36, 42)),
    (48, 2),
    *((c, 1) for c in (56, 64, 72, 80, 88)),
    (96, 2),
    *((96, 1),) * 4,
)
FINE, COARSE = 88, 96  # channels of the two maps
# Exponents of the equalization below: 0 leaves a channel, 1 gives all channels the same range.
# Full equalization only moves the spread into the pointwise weights. Chosen, with MAX_LOGIT, by the
# smallest difference from float32 on pictures of ORL and of LFW in colour.
STREAM_POWER, DEPTHWISE_POWER = 0.35, 0.35
# Pictures that the float network answers with logits beyond this are left out of the calibration:
# a flat or extreme input drives its activations far out, and a range that holds them resolves
# nothing else. Such an input saturates instead.
MAX_LOGIT = 60.0
CALIBRATION_PICTURES, RANGE_PICTURES = 300, 200

Array = npt.NDArray[np.float32]


def read_weights(tflite: bytes) -> list[Array]:
    """Kernel and bias of every convolution, in the order of the operators, as float32."""
    model = schema.ModelT.InitFromPackedBuf(tflite, 0)
    graph = model.subgraphs[0]
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    kinds = schema.BuiltinOperator
    widened = {}  # the file keeps float16 and widens at run time
    for op in graph.operators:
        if codes[op.opcodeIndex] == kinds.DEQUANTIZE:
            tensor = graph.tensors[op.inputs[0]]
            data = np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes()
            values = np.frombuffer(data, np.float16).reshape(tensor.shape)
            widened[op.outputs[0]] = values.astype(np.float32)
    convolutions = (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D)
    found = [o for o in graph.operators if codes[o.opcodeIndex] in convolutions]
    return [widened[k] for op in found for k in op.inputs[1:3]]


@tf.keras.utils.register_keras_serializable("edge_rt")
class PadChannels(tf.keras.layers.Layer):  # type: ignore[misc]
    """Zero channels appended, so that a shortcut fits a wider block."""

    def __init__(self, extra: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extra = extra

    def call(self, x: Any) -> Any:
        return tf.pad(x, [[0, 0], [0, 0], [0, 0], [0, self.extra]])


def convert_float(tflite: bytes) -> bytes:
    """The published network with squeezed heads, float32."""
    return to_float(build(read_weights(tflite)))


def convert_int8(tflite: bytes, shown: list[npt.NDArray[np.uint8]]) -> bytes:
    """The same, equalized and quantized. shown: network inputs, uint8 (128, 128, 3) RGB."""
    weights = read_weights(tflite)
    trunk = Trunk(iter(weights[:-8]))
    probe = tf.function(tf.keras.Model(trunk.picture, _conv(trunk.coarse, *weights[-6:-4])))
    squares = [s.astype(np.float32) / 127.5 - 1.0 for s in shown]
    tame = [s for s in squares if np.abs(probe(s[np.newaxis])).max() < MAX_LOGIT]
    print(f"{len(tame)} of {len(squares)} calibration inputs kept")
    even = equalize(weights, *channel_ranges(weights, tame[:RANGE_PICTURES]))
    return to_int8(build(even), tame[:CALIBRATION_PICTURES])


class Trunk:
    """The network up to its heads; keeps the inner maps for `channel_ranges`."""

    def __init__(self, weights: Iterator[Array]) -> None:
        self.picture = tf.keras.Input((SIZE, SIZE, 3), batch_size=1, name="picture")
        x = _conv(self.picture, next(weights), next(weights), 2, "relu")
        self.stream, self.depthwise = [x], []
        self.fine = x
        for channels, stride in BLOCKS:
            if stride == 2:
                self.fine = x
            inner = _depthwise(x, next(weights), next(weights), stride)
            y = _conv(inner, next(weights), next(weights))
            short = tf.keras.layers.MaxPool2D(2, padding="same")(x) if stride == 2 else x
            if channels > short.shape[-1]:
                short = PadChannels(channels - short.shape[-1])(short)
            x = tf.keras.layers.ReLU()(tf.keras.layers.Add()([y, short]))
            self.stream.append(x)
            self.depthwise.append(inner)
        self.coarse = x


def build(weights: Iterable[Array]) -> Any:
    """Keras model: float32 (1, 128, 128, 3) RGB -1..1 -> boxes (1, 896, 16), scores (1, 896, 1).

    Boxes and scores are squeezed as BOX_SCALE and SCORE_SCALE say.
    """
    source = iter(weights)
    trunk = Trunk(source)
    heads = []
    for width, scale, offset in (
        (1, SCORE_SCALE, SCORE_OFFSET),
        (16, BOX_SCALE, BOX_OFFSET),
    ):
        layers = []
        for source_map in (trunk.fine, trunk.coarse):
            kernel, bias = next(source) / scale, next(source) / scale + offset
            y = _conv(source_map, kernel, bias, 1, "relu6")
            layers.append(tf.keras.layers.Reshape((-1, width))(y))
        heads.append(tf.keras.layers.Concatenate(axis=1)(layers))
    assert next(source, None) is None, "the file holds more convolutions than BlazeFace has"
    return tf.keras.Model(trunk.picture, [heads[1], heads[0]])


def channel_ranges(weights: list[Array], pictures: list[Array]) -> tuple[list[Array], list[Array]]:
    """Largest |value| of every channel of the stream and of every depthwise output.

    One array (channels,) a map; the 99th percentile over the pictures.
    """
    trunk = Trunk(iter(weights))
    maps = [*trunk.stream, *trunk.depthwise]
    model = tf.function(tf.keras.Model(trunk.picture, maps))
    seen: list[list[Array]] = [[] for _ in maps]
    for picture in pictures:
        for values, found in zip(model(picture[np.newaxis]), seen, strict=True):
            found.append(np.abs(np.asarray(values)).max(axis=(0, 1, 2)))
    ranges = [np.percentile(np.array(f), 99, axis=0) for f in seen]
    return ranges[: len(trunk.stream)], ranges[len(trunk.stream) :]


def equalize(weights: list[Array], stream: list[Array], depthwise: list[Array]) -> list[Array]:
    """The same function with channels of like range, so that one int8 scale a tensor fits all.

    Cross-layer equalization (Nagel et al. 2019, arXiv:1906.04721), here exact over the whole
    network: relu, max pooling and shortcuts all pass a positive factor through, and a channel
    keeps its place from block to block. Without it int8 costs three and a half times the keypoint
    noise (medians on LFW and ORL).
    """
    total, count = np.zeros(COARSE), np.zeros(COARSE)
    for found in stream:
        total[: len(found)] += np.log(np.maximum(found / found.mean(), 1e-3))
        count[: len(found)] += 1
    factor = np.exp(STREAM_POWER * total / count)
    out = [w.copy() for w in weights]
    into = len(stream[0])
    out[0] /= factor[:into, None, None, None]
    out[1] /= factor[:into]
    at = 2
    for (channels, _), found in zip(BLOCKS, depthwise, strict=True):
        inner = np.maximum(found / found.mean(), 1e-2) ** DEPTHWISE_POWER
        out[at] *= factor[:into] / inner
        out[at + 1] /= inner
        out[at + 2] *= inner / factor[:channels, None, None, None]
        out[at + 3] /= factor[:channels]
        at, into = at + 4, channels
    for head, channels in enumerate((FINE, COARSE, FINE, COARSE)):
        out[at + 2 * head] *= factor[:channels]
    return [w.astype(np.float32) for w in out]


def _conv(x: Any, kernel: Array, bias: Array, stride: int = 1, activation: Any = None) -> Any:
    layer = tf.keras.layers.Conv2D(
        kernel.shape[0],
        kernel.shape[1:3],
        stride,
        padding="same",
        activation=activation,
    )
    y = layer(x)
    layer.set_weights([kernel.transpose(1, 2, 3, 0), bias])
    return y


def _depthwise(x: Any, kernel: Array, bias: Array, stride: int) -> Any:
    layer = tf.keras.layers.DepthwiseConv2D(3, stride, padding="same")
    y = layer(x)
    layer.set_weights([kernel.transpose(1, 2, 3, 0), bias])
    return y
