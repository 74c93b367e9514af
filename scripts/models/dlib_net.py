"""dlib's face recognition ResNet as a Keras model, from its serialized weights (.dat, CC0).

Network: D. King, dlib v19.3 `dnn_face_recognition_ex.cpp` (anet_type), 29 convolutions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

SIZE = 150
EMBEDDING = 128
MEAN = np.array([122.782, 117.001, 104.298], np.float32)  # red, green, blue; dlib input_rgb_image
INPUT_SCALE = 256.0
# (channels, number of plain blocks behind the reducing one); the first stage does not reduce
STAGES = ((32, 3), (64, 3), (128, 2), (256, 2), (256, 0))


class DatReader:
    """Walks the parameter tensors of a dlib network file in the order they were written.

    A tensor record is: version 2, four dimensions, then little-endian float32. An integer is one
    byte counting its bytes, then those bytes (dlib serialize.h). The architecture fixes the size
    of every tensor, so each header is known exactly and found by searching onwards for it.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, *dimensions: int) -> npt.NDArray[np.float32]:
        header = b"\x01\x02" + b"".join(_integer(d) for d in dimensions)
        start = self._data.index(header, self._at) + len(header)
        count = int(np.prod(dimensions))
        self._at = start + 4 * count
        values = np.frombuffer(self._data, "<f4", count, start).astype(np.float32)
        assert np.isfinite(values).all() and np.abs(values).max() < 1e4, "not a weight tensor"
        return values


def _integer(value: int) -> bytes:
    digits = value.to_bytes((value.bit_length() + 7) // 8, "little")
    return bytes([len(digits)]) + digits


@tf.keras.utils.register_keras_serializable("edge_rt")
class PadTo(tf.keras.layers.Layer):  # type: ignore[misc]
    """Zeros below, right and in new channels: how dlib adds maps of unequal shape."""

    def __init__(self, shape: tuple[int, int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = shape

    def call(self, x: Any) -> Any:
        grow = [[0, want - have] for want, have in zip(self.shape, x.shape[1:], strict=True)]
        return tf.pad(x, [[0, 0], *grow])


def build(dat: bytes) -> Any:
    """Keras model: float32 (1, 150, 150, 3) RGB 0..255 -> (1, 128).

    The affine layers and the input's mean and scale are folded into the convolutions.
    """
    reader = DatReader(dat)
    keras = tf.keras.layers

    def conv(x: Any, out: int, size: int, stride: int, relu: bool, padding: str = "same") -> Any:
        into = x.shape[-1]
        values = reader.take(size * size * into * out + out, 1, 1, 1)
        kernel = values[:-out].reshape(out, into, size, size).transpose(2, 3, 1, 0)
        affine = reader.take(2 * out, 1, 1, 1)
        gain, shift = affine[:out], affine[out:]
        kernel, bias = kernel * gain, values[-out:] * gain + shift
        if into == 3:
            kernel = kernel / INPUT_SCALE
            bias = bias - np.einsum("hwio,i->o", kernel, MEAN)
        layer = keras.Conv2D(
            out, size, stride, padding=padding, activation="relu" if relu else None
        )
        y = layer(x)
        layer.set_weights([kernel, bias])
        return y

    def block(x: Any, out: int) -> Any:
        y = conv(conv(x, out, 3, 1, True), out, 3, 1, False)
        return keras.ReLU()(keras.Add()([x, y]))

    def reducing_block(x: Any, out: int) -> Any:
        y = conv(conv(x, out, 3, 2, True, "valid"), out, 3, 1, False)
        short = keras.AveragePooling2D(2, 2, "valid")(x)
        shape = tuple(max(a, b) for a, b in zip(short.shape[1:], y.shape[1:], strict=True))
        y, short = (PadTo(shape)(v) if tuple(v.shape[1:]) != shape else v for v in (y, short))
        return keras.ReLU()(keras.Add()([y, short]))

    picture = tf.keras.Input((SIZE, SIZE, 3), batch_size=1, name="picture")
    x = keras.MaxPool2D(3, 2, "valid")(conv(picture, 32, 7, 2, True, "valid"))
    for stage, (channels, plain) in enumerate(STAGES):
        if stage:
            x = reducing_block(x, channels)
        for _ in range(plain):
            x = block(x, channels)
    x = keras.GlobalAveragePooling2D()(x)
    head = keras.Dense(EMBEDDING, use_bias=False, name="embedding")
    y = head(x)
    head.set_weights([reader.take(x.shape[-1], EMBEDDING, 1, 1).reshape(-1, EMBEDDING)])
    return tf.keras.Model(picture, y)
