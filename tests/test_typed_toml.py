"""Typed TOML: what is wrong names the place, and the nearest valid key or choice."""

from __future__ import annotations

import msgspec
import pytest

from edge_rt.core.errors import ConfigError, ManifestError
from edge_rt.core.typed_toml import decode_toml


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """Base of all below."""


class Cat(Strict, tag_field="kind", tag="cat"):
    lives: int = 9


class Dog(Strict, tag_field="kind", tag="dog"):
    leash_m: float


class Room(Strict):
    size_m2: float
    pets: tuple[Cat | Dog, ...] = ()


class House(Strict):
    rooms: dict[str, Room] = {}
    guard: Dog | None = None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gaurd = 1", "unknown key 'gaurd' in the top level; did you mean 'guard'?"),
        ("zzz = 1", "unknown key 'zzz' in the top level; valid keys: guard, rooms"),
        ("rooms.hall.size = 1", "unknown key 'size' in [rooms]; did you mean 'size_m2'?"),
        ("[rooms.hall]", "[rooms] has no key 'size_m2'; add it"),
        (
            "[[rooms.hall.pets]]\nkind = 'cat'\nlifes = 3",
            "unknown key 'lifes' in [rooms.pets[0]]; did you mean 'lives'?",
        ),
        (
            "[[rooms.hall.pets]]\nkind = 'cow'",
            "rooms.pets[0].kind: Invalid value 'cow'; choose cat, dog",
        ),
        ("[[rooms.hall.pets]]\nlives = 3", "[rooms.pets[0]] has no key 'kind'; choose cat, dog"),
        (
            "[guard]\nkind = 'dog'\nleash_m = 'x'",
            "guard.leash_m: Expected `float`, got `str`; correct this value",
        ),
        ("a = ", "not valid TOML: "),
    ],
)
def test_what_is_wrong_names_place_and_remedy(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_toml(text, House, "house.toml", ConfigError)
    assert str(caught.value).startswith(f"house.toml: {says}")


def test_a_union_is_told_apart_at_the_top() -> None:
    assert decode_toml("kind = 'cat'", Cat | Dog, "pet.toml", ManifestError) == Cat()
    with pytest.raises(ManifestError, match="pet.toml: kind: Invalid value 'cow'; choose cat, dog"):
        decode_toml("kind = 'cow'", Cat | Dog, "pet.toml", ManifestError)
