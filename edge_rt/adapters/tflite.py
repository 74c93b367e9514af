"""The one place that imports a TensorFlow Lite interpreter: LiteRT or tflite-runtime.

Both engines share one API. Which one runs is chosen by name, or by what is installed ("auto":
LiteRT first), is visible as `Interpreter.engine`, and is never switched silently.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_rt.core.errors import ConfigError, ModelError
from edge_rt.core.types import Float32Array

# name in the config -> (importable module, distribution); the order is the preference of "auto"
ENGINES = {
    "litert": ("ai_edge_litert", "ai-edge-litert"),
    "tflite-runtime": ("tflite_runtime", "tflite-runtime"),
}
FENV_BYTES = 64  # fenv_t has 8 on ARM and 32 on x86-64 (glibc, bits/fenv.h)
IDENTIFIER = b"TFL3"  # bytes 4..8 of every TFLite flatbuffer (schema.fbs, file_identifier)

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model.

    scale, zero_point  real = (raw - zero_point) * scale; scale 0.0 means not quantized
    """

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero_point: int


def installed_engines() -> tuple[str, ...]:
    """Names of the engines that can be imported here, preferred first."""
    return tuple(name for name, (module, _) in ENGINES.items() if importlib.util.find_spec(module))


def choose_engine(name: str = "auto", numpy_version: str = np.__version__) -> str:
    """Resolve "auto" and check that the engine works here. Raises ConfigError with the remedy."""
    if name != "auto" and name not in ENGINES:
        raise ConfigError(f"engine {name!r} is unknown; choose auto, {', '.join(ENGINES)}")
    available = installed_engines()
    if not available:
        raise ConfigError("no inference engine is installed; run: pip install ai-edge-litert")
    chosen = available[0] if name == "auto" else name
    if not _bears(chosen, numpy_version):
        raise ConfigError(
            f"tflite-runtime does not work with numpy {numpy_version}; "
            "run: pip install 'numpy<2', or install ai-edge-litert"
        )
    if chosen not in available:
        other = [e for e in available if _bears(e, numpy_version)]
        raise ConfigError(
            f"engine {chosen!r} is not installed; run: pip install {ENGINES[chosen][1]}"
            + (f", or set engine = {other[0]!r}" if other else "")
        )
    return chosen


@functools.cache
def load_engine(chosen: str) -> tuple[str, Any]:
    """Name with version, and module, of an engine that `choose_engine` gave; imported once.

    Raises ConfigError for one that is there and cannot be imported.
    """
    name, distribution = ENGINES[chosen]
    try:
        with _arithmetic_kept():
            package = importlib.import_module(name)
            module = importlib.import_module(package.__name__ + ".interpreter")
    except (ImportError, OSError) as error:  # half installed, or a library it needs is gone
        raise ConfigError(
            f"engine {chosen!r} cannot be loaded ({error}); "
            f"run: pip install --force-reinstall {distribution}"
        ) from None
    # Not importlib.metadata: for one line of text it would bring the whole of `email` along.
    return f"{chosen} {package.__version__}", module


@contextlib.contextmanager
def _arithmetic_kept() -> Iterator[None]:
    """Keep this thread's floating-point environment (fenv(3)) over an import.

    tflite-runtime 2.14.0 for ARM makes the thread that loads it, and all that this one starts
    later, take subnormal numbers for zero, as libraries linked with GCC's -ffast-math do.
    """
    libm = ctypes.CDLL("libm.so.6")
    kept = ctypes.create_string_buffer(FENV_BYTES)
    libm.fegetenv(kept)
    try:
        yield
    finally:
        libm.fesetenv(kept)


def _bears(engine: str, numpy_version: str) -> bool:
    """tflite-runtime was built against numpy 1 and never again."""
    return engine != "tflite-runtime" or int(numpy_version.split(".")[0]) < 2


def _tensor(detail: dict[str, Any]) -> Tensor:
    scale, zero_point = detail["quantization"]
    return Tensor(
        str(detail["name"]),
        int(detail["index"]),
        tuple(int(n) for n in detail["shape"]),
        np.dtype(detail["dtype"]),
        float(scale),
        int(zero_point),
    )


class Interpreter:
    """A loaded single-input model.

    Not safe for use from two threads at once; each pipeline owns its own.

    engine   name and version, for logs and status
    inputs   one Tensor
    outputs  Tensors in the model's order
    """

    def __init__(self, model: bytes, engine: str = "auto", threads: int = 1) -> None:
        """Load `model`, the bytes of a .tflite file.

        Raises ConfigError for an unusable engine, ModelError for bytes that are no model, for an
        op that the engine lacks, and for a model with other than one input.

        The caller vouches for the bytes (by their hash): tflite-runtime 2.14 does not verify a
        flatbuffer and may crash the process on a damaged one. Foreign models are tried in a child
        process first (edge_rt.probe).
        """
        chosen = choose_engine(engine)
        self.engine, native = load_engine(chosen)
        if model[4:8] != IDENTIFIER:
            raise ModelError("not a TFLite file (no TFL3 identifier); convert the model to TFLite")
        try:
            with _without_notices():
                self._native = native.Interpreter(model_content=model, num_threads=threads)
                self._native.allocate_tensors()
            self.inputs = tuple(_tensor(d) for d in self._native.get_input_details())
            self.outputs = tuple(_tensor(d) for d in self._native.get_output_details())
        except (ValueError, RuntimeError) as error:  # also a tensor's name that is no text
            reason = _first_line(error).rstrip(".")
            raise ModelError(
                f"{self.engine} cannot load the model: {reason}; {_remedy(reason)}"
            ) from None
        self._model = model  # the engine keeps a pointer into it
        if len(self.inputs) != 1:
            raise ModelError(
                f"the model has {len(self.inputs)} inputs; edge_rt takes models with one"
            )
        self._input_index = self.inputs[0].index
        self._output_indices = tuple(o.index for o in self.outputs)
        # Bound once: looking them up at each call costs as much as a tiny model's arithmetic.
        self._set = self._native.set_tensor
        self._invoke = self._native.invoke
        self._get = self._native.get_tensor

    def invoke(self, raw: Array) -> tuple[Array, ...]:
        """Run on one already quantized input of the input tensor's exact shape and dtype.

        Returns a copy of every output in the tensor's own dtype. Raises ModelError for a wrong
        shape or dtype, or when the engine fails. The engine releases the GIL meanwhile.
        """
        try:
            self._set(self._input_index, raw)
            self._invoke()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{self.engine}: {_first_line(error)}") from None
        return tuple(map(self._get, self._output_indices))

    def input_view(self) -> Array:
        """The input tensor's own memory, for writing in place; drop it before invoking.

        Pays for pictures; for windows of a few hundred bytes `invoke(raw)` is faster.
        """
        return self._native.tensor(self._input_index)()  # type: ignore[no-any-return]

    def invoke_filled(self) -> tuple[Array, ...]:
        """Like `invoke`, on what was written through `input_view`. No copy of the input is made."""
        try:
            self._invoke()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{self.engine}: {_first_line(error)}") from None
        return tuple(map(self._get, self._output_indices))

    def quantize(self, real: Array, out: Array | None = None) -> Array:
        """Real values to the input tensor's dtype, elementwise, any shape; fills `out` if given.

        q = clip(round(real / scale + zero_point)), rounding halves to even
        (https://ai.google.dev/edge/litert/models/quantization_spec).
        """
        return quantize(real, self.inputs[0], out)

    def dequantize(self, raw: Array, k: int = 0) -> Float32Array:
        """Output `k` as float32 real values, same shape."""
        tensor = self.outputs[k]
        if tensor.scale == 0.0:
            return np.asarray(raw, np.float32)
        return (raw.astype(np.float32) - np.float32(tensor.zero_point)) * np.float32(tensor.scale)

    def run(self, real: Array) -> tuple[Float32Array, ...]:
        """Quantize, invoke, dequantize: real values in and out, in the tensors' shapes."""
        shape = self.inputs[0].shape
        if np.shape(real) != shape:
            raise ModelError(f"input has shape {np.shape(real)}; the model takes {shape}")
        raw = self.invoke(self.quantize(np.asarray(real, np.float32)))
        return tuple(self.dequantize(r, k) for k, r in enumerate(raw))

    @property
    def native(self) -> Any:
        """The engine's own interpreter, for the benchmark that compares with it."""
        return self._native

    def ops(self) -> dict[str, int]:
        """How often the model uses each operation, most used first."""
        # A private method of both engines; edge_rt asks for it only to describe a model.
        try:
            names = Counter(str(op["op_name"]) for op in self._native._get_ops_details())
        except UnicodeDecodeError:
            raise ModelError(
                f"{self.engine} cannot load the model: a name in it is no text; publish it anew"
            ) from None
        names.pop("DELEGATE", None)  # stands for nodes that are listed themselves
        return dict(names.most_common())

    def warm_up(self, runs: int = 2) -> None:
        """Invoke on zeros: the first calls of an engine pack weights and touch cold memory."""
        zeros = np.full(self.inputs[0].shape, self.inputs[0].zero_point, self.inputs[0].dtype)
        for _ in range(runs):
            self.invoke(zeros)


def quantize(real: Array, tensor: Tensor, out: Array | None = None) -> Array:
    """See `Interpreter.quantize`."""
    if tensor.scale == 0.0:
        if out is None:
            return np.ascontiguousarray(real, tensor.dtype)
        out[...] = real
        return out
    low, high = _limits(tensor.dtype)
    steps = np.asarray(real, np.float32) / np.float32(tensor.scale)
    steps += np.float32(tensor.zero_point)
    np.rint(steps, out=steps)
    np.clip(steps, low, high, out=steps)
    if out is None:
        return steps.astype(tensor.dtype)
    out[...] = steps
    return out


# Written to stderr by native code at each start, in front of whatever a command has to say.
_NOTICES = (b"INFO: Created TensorFlow Lite", b"INFO: Initialized TensorFlow Lite")


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """Holds back what native code writes to stderr meanwhile, and passes on all but the notices."""
    sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    with open(os.memfd_create("stderr"), "r+b") as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            rest = b"".join(line for line in held if not line.startswith(_NOTICES))
            if rest:
                os.write(2, rest)


@functools.cache
def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Smallest and largest value of an integer type; making np.iinfo costs 3 us at each call."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def _remedy(reason: str) -> str:
    if "custom op" in reason or "Flex" in reason:
        return "convert it with built-in operations only"
    return "convert and publish it anew, or use another engine"


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    # LiteRT 2.3 says nothing at all when an allocation fails.
    return text.splitlines()[0] if text else "no reason given, as when memory runs out"
