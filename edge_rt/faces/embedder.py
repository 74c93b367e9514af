"""Face embedder: keypoints to an aligned chip, a chip to an embedding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_rt.adapters.imaging import mirror, to_tensor, warp
from edge_rt.bundle import Bundle
from edge_rt.core.errors import ManifestError
from edge_rt.core.manifest import EmbedManifest
from edge_rt.core.types import Float32Array, ImageArray
from edge_rt.faces.align import fit_similarity


class FaceEmbedder:
    """Turns a found face into numbers; not safe for use from two threads at once."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises ManifestError for a bundle of another task, or with fewer than two points."""
        manifest = bundle.manifest
        if not isinstance(manifest, EmbedManifest):
            raise ManifestError(f"{manifest.name} is no face embedder; name a face-embed bundle")
        self.template = np.array(manifest.decision.align, np.float64)
        if self.template.ndim != 2 or len(self.template) < 2:
            raise ManifestError(f"{manifest.name}: [decision] align needs two points or more")
        spec, interpreter = manifest.input, bundle.interpreter
        self._interpreter = interpreter
        self._table = interpreter.quantize(np.linspace(spec.low, spec.high, 256))
        self._swap = spec.colour == "rgb"
        self._chip: ImageArray = np.empty((spec.height, spec.width, 3), np.uint8)
        self._input = np.empty(interpreter.inputs[0].shape, interpreter.inputs[0].dtype)
        self._mirrored = np.empty_like(self._input)
        self.size = manifest.output.size
        self.space = manifest.embedding_space
        self.threshold = manifest.decision.threshold

    def align(self, image: ImageArray, keypoints: npt.NDArray[np.float32]) -> ImageArray:
        """The face moved onto the template: uint8 (height, width, 3) blue-green-red.

        keypoints  float32 (k, 2) pixels of image; as many as the template has are used.
        Returns a buffer that the next call overwrites. Raises ValueError when the points coincide.
        """
        matrix = fit_similarity(keypoints[: len(self.template)], self.template)
        warp(image, matrix, self._chip)
        return self._chip

    def embed(self, chip: ImageArray) -> Float32Array:
        """The embedding of an aligned chip: float32 (size,), compared by Euclidean distance.

        The mean over the chip and its mirror image: a face's two halves carry independent noise,
        which is worth about half a point of accuracy for one more inference (see the card).
        """
        to_tensor(chip, self._table, self._swap, self._input[0])
        mirror(self._input[0], self._mirrored[0])
        (one,), (other,) = map(self._interpreter.invoke, (self._input, self._mirrored))
        one, other = self._interpreter.dequantize(one[0]), self._interpreter.dequantize(other[0])
        return (one + other) * np.float32(0.5)
