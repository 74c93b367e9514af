"""A bundle ready to run: its manifest, checked against the tensors of a loaded interpreter."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_rt.adapters.bundle_files import BundleFiles, read_bundle, read_golden
from edge_rt.adapters.tflite import Interpreter
from edge_rt.core.errors import InputError, ManifestError, ModelError
from edge_rt.core.manifest import (
    BlazeFaceOutput,
    EmbeddingOutput,
    Manifest,
    WindowInput,
    version_tuple,
)
from edge_rt.core.windows import CHANNELS


class Bundle(NamedTuple):
    """A model and everything its user needs to know of it."""

    manifest: Manifest
    interpreter: Interpreter
    files: BundleFiles

    def run(self, x: npt.ArrayLike) -> tuple[npt.NDArray[np.float32], ...]:
        """Real values in and out, float32, in the shapes of the model's tensors.

        x  one input of the model's shape, batch axis included, in the units that the manifest's
           [input] names. Raises ModelError for a wrong shape.
        """
        return self.interpreter.run(np.asarray(x, np.float32))


def factory_bundles() -> dict[str, Path]:
    """The bundles that came with edge_rt: name -> folder."""
    root = Path(str(importlib.resources.files("edge_rt.models")))
    return {p.parent.name: p.parent for p in sorted(root.glob("*/model.toml"))}


def locate(name_or_path: str | Path) -> Path:
    """The folder of a factory bundle by its name, or of any other bundle by its path.

    A path has a separator in it; a bare word is a factory name. Raises InputError.
    """
    if isinstance(name_or_path, Path) or "/" in name_or_path:
        folder = Path(name_or_path)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; name a bundle folder or a factory bundle")
        return folder
    known = factory_bundles()
    if name_or_path not in known:
        if Path(name_or_path).is_dir():
            return Path(name_or_path)
        raise InputError(
            f"no factory bundle {name_or_path!r}; there are {', '.join(known)} "
            "(for a folder write ./folder)"
        )
    return known[name_or_path]


def open_bundle(name_or_path: str | Path, engine: str = "auto", threads: int = 1) -> Bundle:
    """Open a factory bundle by name or any bundle by path, ready to run.

    >>> import edge_rt, numpy as np
    >>> bundle = edge_rt.open_bundle("fall-waist")
    >>> (score,) = bundle.run(np.zeros(bundle.interpreter.inputs[0].shape))
    >>> score.shape
    (1, 1)

    Raises InputError (nothing there), ManifestError (hash, size, or manifest and tensors disagree),
    ModelError (the engine cannot load it), ConfigError (no such engine).
    """
    files = read_bundle(locate(name_or_path))
    return assemble(files, lambda model: Interpreter(model, engine, threads))


def assemble(files: BundleFiles, load: Callable[[bytes], Interpreter]) -> Bundle:
    """A bundle from its files and an interpreter that `load` makes of the model's bytes.

    Raises ManifestError (for a newer runtime, or manifest and tensors disagree) and what `load`
    raises, with the folder's name in front.
    """
    from edge_rt import __version__

    needed = files.manifest.minimum_runtime
    if version_tuple(needed) > version_tuple(__version__):
        raise ManifestError(
            f"{files.folder}: needs edge_rt {needed}, this is {__version__}; upgrade edge_rt"
        )
    try:
        interpreter = load(files.model)
    except ModelError as error:
        raise ModelError(f"{files.folder}: {error}") from None
    check_tensors(files.manifest, interpreter, str(files.folder))
    return Bundle(files.manifest, interpreter, files)


def check_tensors(manifest: Manifest, interpreter: Interpreter, where: str) -> None:
    """Raise ManifestError unless the model's tensors are what the manifest says."""
    (tensor,) = interpreter.inputs
    spec = manifest.input
    if isinstance(spec, WindowInput) and (unknown := set(spec.channels) - set(CHANNELS)):
        raise ManifestError(
            f"{where}: channel {min(unknown)!r} is unknown; this runtime knows "
            f"{', '.join(CHANNELS)}"
        )
    expected: tuple[int, ...]
    if isinstance(spec, WindowInput):
        expected = (1, 1, spec.window, len(spec.channels))
    else:
        expected = (1, spec.height, spec.width, 3)
    if tensor.shape != expected:
        raise ManifestError(
            f"{where}: the manifest's input is {expected}, the model's is {tensor.shape}; "
            "correct [input] or publish the model that belongs to it"
        )
    shapes = sorted(o.shape for o in interpreter.outputs)
    wanted = sorted(_output_shapes(manifest))
    if shapes != wanted:
        raise ManifestError(
            f"{where}: the manifest's outputs are {wanted}, the model's {shapes}; "
            "correct [output] or publish the model that belongs to it"
        )
    for t in (tensor, *interpreter.outputs):
        if t.dtype.kind in "iu" and t.scale <= 0.0:
            raise ManifestError(
                f"{where}: tensor {t.name} is {t.dtype} without a scale; quantize it anew"
            )


def _output_shapes(manifest: Manifest) -> list[tuple[int, ...]]:
    output = manifest.output
    if isinstance(output, BlazeFaceOutput):
        return [(1, output.anchors, 1), (1, output.anchors, 4 + 2 * output.keypoints)]
    if isinstance(output, EmbeddingOutput):
        return [(1, output.size)]
    return [(1, 1)]


class GoldenResult(NamedTuple):
    """Outcome of the golden vectors: largest absolute difference seen, in tensor units."""

    cases: int
    worst: float
    tolerance: float
    passed: bool


def verify_golden(bundle: Bundle) -> GoldenResult:
    """Run the golden inputs and compare. Raises ManifestError for an unusable golden file."""
    return compare_golden(bundle, *read_golden(bundle.files))


def compare_golden(
    bundle: Bundle, inputs: Sequence[npt.NDArray[Any]], outputs: Sequence[npt.NDArray[Any]]
) -> GoldenResult:
    """`verify_golden` with what was read before (`read_golden`)."""
    tensors = bundle.interpreter.outputs
    if len(outputs) != len(tensors):
        raise ManifestError(
            f"{bundle.files.folder}: golden vectors have {len(outputs)} outputs, the model "
            f"{len(tensors)}; rebuild the bundle"
        )
    worst = 0.0
    for case, raw in enumerate(inputs[0]):
        got = bundle.interpreter.invoke(raw[np.newaxis])
        for k, array in enumerate(got):
            worst = max(worst, _distance(array[0], outputs[k][case]))
    tolerance = bundle.manifest.golden.tolerance
    return GoldenResult(len(inputs[0]), worst, tolerance, worst <= tolerance)


def _distance(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    difference = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
    return difference if difference == difference else float("inf")  # NaN never passes
