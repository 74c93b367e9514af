"""Training of the fall network and its quantization (extra [train]; never on the device).

The network is convolutional along time: trained on stretches of 15 s, it scores every hop of them
at once, and gives the same numbers window by window.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_rt.adapters.trials import Trial
from edge_rt.core.errors import InputError
from edge_rt.core.types import Float32Array
from edge_rt.falls.examples import FALL, NONE, Grid, examples, place, vary

GRID = Grid(
    25.0, 97, 4, ("magnitude", "vertical", "horizontal", "jerk", "tilt_recent", "tilt_past")
)
EPOCHS = 16
STEPS = 900  # at least: of a small data set more epochs, or it stays untrained
BATCH = 64
RATE = 4e-3  # peak learning rate of the one-cycle schedule (Smith & Topin 2018, arXiv:1708.07120)
VARIANTS = 8  # a trial as recorded, and seven times changed
WORST = 8  # hops of a stretch without a fall that count: false alarms are about the worst moment
NONES_PER_FALL = 1.5
REPEAT = 3  # how often, at most, trials of a rare placement are repeated


class Bank(NamedTuple):
    """All examples of all trials, made once and shared by the folds.

    rows    float32 (variants, E, grid.rows, channels)
    target  int8 (variants, E, hops)
    trial   int64 (E,): index of the trial an example comes from
    """

    rows: npt.NDArray[np.float32]
    target: npt.NDArray[np.int8]
    trial: npt.NDArray[np.int64]


def make_bank(trials: Sequence[Trial], seed: int, grid: Grid = GRID) -> Bank:
    """Examples of every trial in `VARIANTS` forms. Deterministic for a seed."""
    rows: list[list[Float32Array]] = []
    target: list[list[npt.NDArray[np.int8]]] = []
    owner: list[int] = []
    for index, trial in enumerate(trials):
        placed = place(trial)
        rng = np.random.default_rng([seed, index])
        kinds = [list(examples(placed, grid))]
        kinds += [list(examples(vary(placed, rng), grid)) for _ in range(VARIANTS - 1)]
        for k in range(len(kinds[0])):
            # A late start can make a trial shorter; its last stretch stands in.
            usable = [kind[min(k, len(kind) - 1)] if kind else kinds[0][k] for kind in kinds]
            rows.append([e.rows for e in usable])
            target.append([e.target for e in usable])
            owner.append(index)
    return Bank(
        np.stack([np.stack(r) for r in rows], axis=1),
        np.stack([np.stack(t) for t in target], axis=1),
        np.array(owner),
    )


def tensorflow() -> Any:
    """The library, on one thread and deterministic. Raises InputError if it is not installed."""
    try:
        tf = importlib.import_module("tensorflow")
    except ImportError:
        raise InputError(
            "training needs TensorFlow, which is not installed; "
            "in a checkout of edge_rt run: pip install -e '.[train]'"
        ) from None
    with contextlib.suppress(RuntimeError):  # already running: an earlier call has set it
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    return tf


def network(tf: Any, rows: int, channels: int, batch: int | None) -> Any:
    """11 k parameters: four convolutions, a long depthwise one, a small head; stride 4 rows."""
    layers = tf.keras.layers
    x = inputs = tf.keras.Input((1, rows, channels), batch_size=batch)
    for filters, kernel, stride in ((16, 5, 2), (24, 5, 2), (32, 5, 1), (32, 3, 1)):
        x = layers.Conv2D(filters, (1, kernel), strides=(1, stride), use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.DepthwiseConv2D((1, 16), use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dropout(0.1)(x)
    x = layers.Conv2D(32, 1, activation="relu")(x)
    x = layers.Conv2D(1, 1)(x)
    if rows == GRID.window:
        x = layers.Reshape((1,))(x)
    return tf.keras.Model(inputs, x)


def train(trials: Sequence[Trial], bank: Bank, use: Sequence[int], seed: int) -> Any:
    """A trained Keras model over stretches, from the trials with the indices `use`.

    Deterministic for a seed and one machine. Raises InputError without both falls and activities.
    """
    tf = tensorflow()
    tf.keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    pool = _pool(trials, bank, use)
    is_fall = np.array([trials[bank.trial[e]].is_fall for e in pool])
    falls, nones = np.nonzero(is_fall)[0], np.nonzero(~is_fall)[0]
    if not len(falls) or not len(nones):
        raise InputError("training needs falls and other activities of the same subjects")
    model = network(tf, bank.rows.shape[2], bank.rows.shape[3], None)
    n_nones = min(round(NONES_PER_FALL * len(falls)), len(nones))
    batches = (len(falls) + n_nones) // BATCH
    if not batches:
        raise InputError(f"{len(pool)} stretches of recordings are too few to train on")
    epochs = max(EPOCHS, -(-STEPS // batches))
    step = _step(tf, model, epochs * batches)
    # Chance of an activity to be drawn: lively ones first, then those that score highest.
    weight = np.where(np.ptp(bank.rows[0, pool, :, 0], axis=1) < 0.3, 0.25, 1.0)
    for _ in range(epochs):
        chance = weight[nones] / weight[nones].sum()
        chosen = np.concatenate((falls, rng.choice(nones, n_nones, replace=False, p=chance)))
        rng.shuffle(chosen)
        for begin in range(0, batches * BATCH, BATCH):
            some = chosen[begin : begin + BATCH]
            kind = rng.integers(0, VARIANTS, len(some))
            drawn = kind, pool[some]
            loss = step(tf.constant(bank.rows[drawn][:, None]), tf.constant(bank.target[drawn]))
            hit = ~is_fall[some]
            new = np.clip(2.0 * loss.numpy()[hit], 0.08, 3.0)
            weight[some[hit]] = 0.5 * weight[some[hit]] + 0.5 * new
    return model


def _pool(trials: Sequence[Trial], bank: Bank, use: Sequence[int]) -> npt.NDArray[np.int64]:
    """Examples to draw from; trials of rarer placements several times over."""
    falls: dict[str, int] = {}
    for index in use:
        falls[trials[index].placement] = (
            falls.get(trials[index].placement, 0) + trials[index].is_fall
        )
    most = max(falls.values(), default=0)
    repeat = {p: max(1, min(REPEAT, most // max(n, 1))) for p, n in falls.items()}
    used = np.isin(bank.trial, use)
    times = [repeat[trials[t].placement] if u else 0 for t, u in zip(bank.trial, used, strict=True)]
    return np.repeat(np.arange(len(bank.trial)), times)


def _step(tf: Any, model: Any, steps: int) -> Any:
    rise = max(1, steps // 5)

    class OneCycle(tf.keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        def __call__(self, step: Any) -> Any:
            at = tf.cast(step, tf.float32)
            up = at / rise
            down = (at - rise) / (steps - rise)
            wave = 0.5 - 0.5 * tf.cos(np.pi * tf.where(at < rise, up, 1.0 - down))
            return RATE * tf.maximum(wave, 1e-3)

    optimizer = tf.keras.optimizers.AdamW(OneCycle(), weight_decay=1e-3)

    @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
    def step(rows: Any, target: Any) -> Any:
        """One update; returns the loss of each stretch over its judged hops without a fall."""
        with tf.GradientTape() as tape:
            logit = model(rows, training=True)[:, 0, :, 0]
            positive = tf.cast(target == FALL, tf.float32)
            negative = tf.cast(target == NONE, tf.float32)
            missed = tf.reduce_sum(tf.nn.softplus(-logit) * positive, 1)
            missed /= tf.maximum(tf.reduce_sum(positive, 1), 1.0)
            alarmed = tf.nn.softplus(logit) * negative
            alarmed = tf.reduce_mean(tf.math.top_k(alarmed, WORST)[0], 1)
            loss = tf.reduce_mean(missed) + tf.reduce_mean(alarmed)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return alarmed

    return step


class Networks(NamedTuple):
    """The same weights as TFLite flatbuffers: int8 in and out, and float32 in and out."""

    int8: bytes
    float32: bytes


def convert(model: Any, bank: Bank, use: Sequence[int], seed: int) -> Networks:
    """Fold, quantize after training on windows of the trials `use`, and convert for one window."""
    tf = tensorflow()
    channels = bank.rows.shape[3]
    window = network(tf, GRID.window, channels, 1)
    window.set_weights(model.get_weights())
    float32 = _quietly(tf.lite.TFLiteConverter.from_keras_model(window))
    calibration = _calibration(bank, use, seed)
    converter = tf.lite.TFLiteConverter.from_keras_model(window)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([w[None, None]] for w in calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return Networks(_quietly(converter), float32)


def _quietly(converter: Any) -> bytes:
    # Keras prints a page about the graph it exports, through standard output: ours carries JSON.
    with contextlib.redirect_stdout(io.StringIO()):
        model: bytes = converter.convert()
    return model


def _calibration(bank: Bank, use: Sequence[int], seed: int, n: int = 400) -> Float32Array:
    """Windows of all kinds, half of them falls: the ranges of the quantized tensors."""
    rng = np.random.default_rng(seed)
    pool = np.nonzero(np.isin(bank.trial, use))[0]
    found: list[Float32Array] = []
    while len(found) < n:
        kind, example = rng.integers(0, VARIANTS), rng.choice(pool)
        hops = np.nonzero(bank.target[kind, example] == (FALL if len(found) % 2 else NONE))[0]
        if len(hops):
            begin = GRID.hop * int(rng.choice(hops))
            found.append(bank.rows[kind, example, begin : begin + GRID.window])
    return np.stack(found)


def folds_of(trials: Sequence[Trial], folds: int | None) -> list[int]:
    """Fold number of each trial: subjects in order of name are dealt out in turn.

    folds  how many; None leaves one subject out at a time.
    """
    subjects = sorted({trial.subject for trial in trials})
    count = len(subjects) if folds is None else folds
    if not 2 <= count <= len(subjects):
        raise InputError(f"{count} folds of {len(subjects)} subjects: give 2 to {len(subjects)}")
    number = {subject: k % count for k, subject in enumerate(subjects)}
    return [number[trial.subject] for trial in trials]
