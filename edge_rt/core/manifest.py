"""The bundle manifest `model.toml`: its types, and what can be checked without opening a file.

Code takes every number of a model from here, so that a bundle can change its window, rate,
size or threshold with no change of code.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_rt.core.errors import ConfigError, ManifestError
from edge_rt.core.typed_toml import decode_toml

MANIFEST_NAME = "model.toml"
SCHEMA = 1

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z")]
# Nine digits: int() refuses thousands of them, and a version is compared at each turn.
Version = Annotated[str, Meta(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
# No separator, no leading dot: a manifest can only name files inside its own folder.
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Frozen, strict base of every manifest section."""


class Bounded(Struct, frozen=True):
    """A threshold and the closed range within which settings may move it."""

    value: float
    min: float
    max: float

    def __post_init__(self) -> None:
        if not self.min <= self.value <= self.max:
            raise ValueError(f"value {self.value} is outside {self.min} to {self.max}")


class FileEntry(Struct, frozen=True):
    """Identity of one file of the bundle."""

    sha256: Sha256
    size: Annotated[int, Meta(ge=1, le=64 * 1024 * 1024)]  # a Zero 2 W has 512 MB in all


class Golden(Struct, frozen=True):
    """Golden vectors: `file` (.npz) holds `input_0`, `output_0`, ... as the tensors hold them.

    tolerance: largest absolute difference of an output element, in the tensor's own units
    (quantization steps for integer outputs); engines and processors round differently.
    """

    file: FileName
    tolerance: Annotated[float, Meta(ge=0)]


# ---- falls ----


class WindowInput(Struct, tag_field="kind", tag="window", frozen=True):
    """A window of acceleration channels, shape (1, 1, window, len(channels)).

    rate_hz  the grid the stream is resampled to; window and hop count its samples
    channels names from core.windows, in the order of the last axis
    units    of the acceleration that the channels are computed from
    """

    rate_hz: Positive
    window: Count
    hop: Count
    channels: Annotated[tuple[str, ...], Meta(min_length=1)]
    units: Literal["g"] = "g"


class ScoreOutput(Struct, tag_field="kind", tag="score", frozen=True):
    """One number, the larger the more fall-like: a logit (log odds) or a probability."""

    scale: Literal["logit", "probability"] = "logit"


class FallDecision(Struct, frozen=True):
    """smooth: number of consecutive hop scores averaged before the comparison."""

    threshold: Bounded
    smooth: Count = 1
    placement: str = "waist"


# ---- faces ----


class ImageInput(Struct, tag_field="kind", tag="image", frozen=True):
    """A picture, shape (1, height, width, 3).

    colour  order of the last axis: "rgb" or "bgr"
    low, high  what the byte values 0 and 255 map to before quantization
    """

    height: Count
    width: Count
    colour: Literal["rgb", "bgr"] = "rgb"
    low: float = 0.0
    high: float = 255.0


class BlazeFaceOutput(Struct, tag_field="kind", tag="blazeface", frozen=True):
    """SSD regressors and scores over fixed anchors (Bazarevsky et al. 2019, arXiv:1907.05047).

    strides      feature map strides, one entry a layer; equal neighbours share one anchor grid
    anchors      number of anchors that the strides give
    keypoints    points a face, each (x, y): right eye, left eye, nose tip, mouth, ear, ear
    score_scale, score_offset  logit = (output - score_offset) * score_scale
    box_scale, box_offset      pixels = (output - box_offset) * box_scale
    """

    strides: tuple[int, ...]
    anchors: Count
    keypoints: Count = 6
    score_scale: float = 1.0
    score_offset: float = 0.0
    box_scale: float = 1.0
    box_offset: float = 0.0


class DetectDecision(Struct, frozen=True):
    """threshold: score (probability) at which a face counts; nms_iou: overlap that merges two."""

    threshold: Bounded
    nms_iou: float = 0.3


class EmbeddingOutput(Struct, tag_field="kind", tag="embedding", frozen=True):
    """A vector of `size` numbers, compared by Euclidean (l2) distance."""

    size: Count
    metric: Literal["l2"] = "l2"


class EmbedDecision(Struct, frozen=True):
    """threshold: largest distance that counts as the same person.

    align  (x, y) pixels in the input picture where right eye, left eye, nose tip and mouth
           centre are moved to by a similarity transform
    """

    threshold: Bounded
    align: tuple[tuple[float, float], ...]


Input = WindowInput | ImageInput
Output = ScoreOutput | BlazeFaceOutput | EmbeddingOutput


class Provenance(Struct, frozen=True):
    """Where the weights come from and which script rebuilds them.

    training_subjects  names in the recordings trained on: figures on them would flatter
    """

    source: str
    script: str
    seed: int | None = None
    packages: tuple[str, ...] = ()
    training_subjects: tuple[str, ...] = ()


class _Common(Struct, frozen=True):
    schema: int
    name: Name
    version: Version
    model: FileName
    license: str  # SPDX expression
    minimum_runtime: Version
    security_epoch: Annotated[int, Meta(ge=0)]
    latency_budget_ms: Positive  # p95 of one invocation on the slowest supported device
    golden: Golden
    provenance: Provenance
    files: dict[FileName, FileEntry]  # every file of the bundle but the manifest itself


class FallManifest(_Common, tag_field="task", tag="fall", frozen=True):
    """A fall scorer."""

    input: WindowInput
    output: ScoreOutput
    decision: FallDecision


class DetectManifest(_Common, tag_field="task", tag="face-detect", frozen=True):
    """A face detector with keypoints."""

    input: ImageInput
    output: BlazeFaceOutput
    decision: DetectDecision


class EmbedManifest(_Common, tag_field="task", tag="face-embed", frozen=True):
    """A face embedder; embeddings compare only within one `embedding_space`."""

    input: ImageInput
    output: EmbeddingOutput
    decision: EmbedDecision
    embedding_space: Name


Manifest = FallManifest | DetectManifest | EmbedManifest


def parse_manifest(text: bytes | str, where: str) -> Manifest:
    """Decode and check a manifest; `where` names it in errors.

    Raises ManifestError for malformed TOML, unknown or missing keys, values of the wrong type or
    range, an unknown schema, or a model / golden file that the file table does not list.
    """
    manifest: Manifest = decode_toml(text, Manifest, where, ManifestError)
    if manifest.schema != SCHEMA:
        raise ManifestError(
            f"{where}: schema {manifest.schema} is not {SCHEMA}; this runtime is too old or too new"
        )
    for needed in (manifest.model, manifest.golden.file, "CARD.md"):
        if needed not in manifest.files:
            raise ManifestError(f"{where}: [files] does not list {needed}; add its sha256 and size")
    return manifest


def distance_within(manifest: EmbedManifest, wanted: float | None) -> float:
    """The distance to match by: `wanted`, or the bundle's own. Raises ConfigError out of bounds."""
    limits = manifest.decision.threshold
    if wanted is None:
        return limits.value
    if not limits.min <= wanted <= limits.max:
        raise ConfigError(
            f"distance {wanted} is outside {limits.min} to {limits.max}, the bounds of "
            f"bundle {manifest.name}"
        )
    return wanted


def version_tuple(version: str) -> tuple[int, int, int]:
    """Numeric order of a version; a suffix behind the three numbers (".dev1") does not count."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        raise ManifestError(f"version {version!r} is not three numbers; write it as 1.2.3")
    major, minor, patch = match.groups()
    return int(major), int(minor), int(patch)
