#!/usr/bin/env python3
"""Cut the demo's faces (edge_rt/demo_media) out of public domain photographs.

    scripts/make_demo_media.py [--stills face_recognition-1.3.0.tar.gz] [--nasa scikit_image....whl]

Fetches the named packages from PyPI unless their files are given.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "models"))

from face_common import SCIKIT_IMAGE, WHITE_HOUSE, Package, member

from edge_rt.adapters.imaging import decode_image, encode_jpeg, warp

OUT = Path(__file__).resolve().parents[1] / "edge_rt" / "demo_media"
WIDTH, HEIGHT, MAX_BYTES = 400, 400, 60_000
# name, package, file in it, middle of the face and width of the cut in pixels of the original
CUTS: tuple[tuple[str, Package, str, tuple[float, float], float], ...] = (
    ("owner_1", WHITE_HOUSE, "test_images/obama.jpg", (488, 290), 720),
    ("owner_2", WHITE_HOUSE, "test_images/obama2.jpg", (340, 460), 620),
    ("owner_3", WHITE_HOUSE, "test_images/obama3.jpg", (768, 490), 740),
    ("stranger_1", SCIKIT_IMAGE, "data/astronaut.png", (224, 130), 250),
    ("stranger_2", WHITE_HOUSE, "test_images/biden.jpg", (561, 430), 780),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stills", type=Path)
    parser.add_argument("--nasa", type=Path)
    args = parser.parse_args()
    local = {WHITE_HOUSE: args.stills, SCIKIT_IMAGE: args.nasa}
    OUT.mkdir(exist_ok=True)
    for name, package, path, (x, y), width in CUTS:
        image = decode_image(member(package, path, local[package]), path)
        zoom = WIDTH / width
        shift = [[zoom, 0.0, WIDTH / 2 - zoom * x], [0.0, zoom, HEIGHT / 2 - zoom * y]]
        cut = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        warp(image, np.array(shift), cut)
        data = encode_jpeg(cut, 88)
        assert len(data) <= MAX_BYTES, f"{name}: {len(data)} bytes"
        (OUT / f"{name}.jpg").write_bytes(data)
        print(name, len(data))


if __name__ == "__main__":
    main()
