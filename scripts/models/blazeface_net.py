"""BlazeFace short range as a Keras model, with the weights of the published .tflite file.

Architecture: Bazarevsky et al. 2019, arXiv:1907.05047, as the file's operators lay it out: a 5x5
stem, sixteen blocks (depthwise 3x3, pointwise, shortcut), heads on the 16x16 and 8x8 maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

SIZE = 128
# (channels, stride) of each block; the heads read the maps before the last reduction and at the end
BLOCKS = (
    [(24, 1), (28, 1), (32, 2), (36, 1), (42, 1), (48, 2)]
    + [(c, 1) for c in (56, 64, 72, 80, 88)]
    + [(96, 2)]
    + [(96, 1)] * 4
)
# int8 heads: what a head emits is squeezed into relu6's 0..6, so that the grid of 256 steps lies
# where faces are and the background's extremes do not stretch it.
SCORE_SCALE, SCORE_OFFSET = 4.0, 3.0  # logit = (output - 3) * 4: -12..12, 0.1 a step

Weights = Iterator[npt.NDArray[np.float32]]


def read_weights(tflite: bytes) -> Weights:
    """Kernel and bias of every convolution, in the order of the operators, as float32."""
    model = schema.ModelT.InitFromPackedBuf(tflite, 0)
    graph = model.subgraphs[0]
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    kinds = schema.BuiltinOperator
    half = {}  # the file keeps float16 and widens at run time
    for op in graph.operators:
        if codes[op.opcodeIndex] == kinds.DEQUANTIZE:
            tensor = graph.tensors[op.inputs[0]]
            data = np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes()
            values = np.frombuffer(data, np.float16).reshape(tensor.shape)
            half[op.outputs[0]] = values.astype(np.float32)
    for op in graph.operators:
        if codes[op.opcodeIndex] in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D):
            yield half[op.inputs[1]]
            yield half[op.inputs[2]]


@tf.keras.utils.register_keras_serializable("edge_rt")
class PadChannels(tf.keras.layers.Layer):  # type: ignore[misc]
    """Zero channels appended, so that a shortcut fits a wider block."""

    def __init__(self, extra: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extra = extra

    def call(self, x: Any) -> Any:
        return tf.pad(x, [[0, 0], [0, 0], [0, 0], [0, self.extra]])


def conv(x: Any, weights: Weights, stride: int = 1, **kwargs: Any) -> Any:
    """A convolution with the next kernel (out, h, w, in) and bias."""
    kernel, bias = next(weights), next(weights)
    return conv_with(x, kernel, bias, stride, **kwargs)


def conv_with(x: Any, kernel: Any, bias: Any, stride: int = 1, **kwargs: Any) -> Any:
    layer = tf.keras.layers.Conv2D(
        kernel.shape[0], kernel.shape[1:3], stride, padding="same", **kwargs
    )
    y = layer(x)
    layer.set_weights([kernel.transpose(1, 2, 3, 0), bias])
    return y


def depthwise(x: Any, weights: Weights, stride: int) -> Any:
    kernel, bias = next(weights), next(weights)
    layer = tf.keras.layers.DepthwiseConv2D(3, stride, padding="same")
    y = layer(x)
    layer.set_weights([kernel.transpose(1, 2, 3, 0).reshape(3, 3, -1, 1), bias])
    return y


def trunk(weights: Weights) -> tuple[Any, Any, Any]:
    """Input, the 16x16x88 map and the 8x8x96 map."""
    keras = tf.keras.layers
    picture = tf.keras.Input((SIZE, SIZE, 3), batch_size=1, name="picture")
    x = conv(picture, weights, 2, activation="relu")
    fine = None
    for channels, stride in BLOCKS:
        if stride == 2:
            fine = x
        y = conv(depthwise(x, weights, stride), weights)
        short = keras.MaxPool2D(2, padding="same")(x) if stride == 2 else x
        if channels > short.shape[-1]:
            short = PadChannels(channels - short.shape[-1])(short)
        x = keras.ReLU()(keras.Add()([y, short]))
    return picture, fine, x
