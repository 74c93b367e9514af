"""The public FaceMatcher: its example, refusals at enrolment, the threshold's bounds."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import edge_rt.faces.matcher as module
from edge_rt.adapters.imaging import read_image
from edge_rt.core.errors import ConfigError, InputError
from edge_rt.faces.matcher import FaceMatcher

MEDIA = Path(str(files("edge_rt"))) / "demo_media"


def test_the_example_in_the_docstring_holds(
    factory_bundle: Callable[[str], Path],
) -> None:
    factory_bundle("face-embed")
    result = doctest.testmod(module)
    assert result.attempted >= 6
    assert result.failed == 0


def test_two_persons_are_told_apart(factory_bundle: Callable[[str], Path], engine: str) -> None:
    matcher = FaceMatcher(
        factory_bundle("face-detect"), factory_bundle("face-embed"), engine=engine
    )
    assert matcher.match(read_image(MEDIA / "owner_2.jpg")) == (None, None, None)
    matcher.enrol("owner", read_image(MEDIA / "owner_1.jpg"))
    matcher.enrol("astronaut", read_image(MEDIA / "stranger_1.jpg"))
    assert matcher.match(read_image(MEDIA / "owner_3.jpg")).person == "owner"
    assert matcher.match(read_image(MEDIA / "stranger_1.jpg")).person == "astronaut"
    nobody = matcher.match(read_image(MEDIA / "stranger_2.jpg"))
    assert nobody.person is None
    assert nobody.distance is not None and nobody.distance > matcher.threshold


def test_a_bad_picture_at_enrolment_is_named_and_nothing_is_learnt(
    factory_bundle: Callable[[str], Path],
) -> None:
    matcher = FaceMatcher(factory_bundle("face-detect"), factory_bundle("face-embed"))
    good = read_image(MEDIA / "owner_1.jpg")
    both = np.hstack([good, read_image(MEDIA / "stranger_1.jpg")])
    with pytest.raises(InputError, match="picture 2 of owner: more than one face"):
        matcher.enrol("owner", good, both)
    with pytest.raises(InputError, match="picture 1 of owner: no face found"):
        matcher.enrol("owner", np.zeros((200, 200, 3), np.uint8))
    with pytest.raises(InputError, match="no picture of owner"):
        matcher.enrol("owner")
    assert matcher.match(good) == (None, None, None)
    assert matcher.match(np.zeros((200, 200, 3), np.uint8)).advice is not None


def test_a_threshold_outside_the_bounds_of_the_bundle_is_refused(
    factory_bundle: Callable[[str], Path],
) -> None:
    with pytest.raises(ConfigError, match="outside"):
        FaceMatcher(factory_bundle("face-detect"), factory_bundle("face-embed"), threshold=1.2)
