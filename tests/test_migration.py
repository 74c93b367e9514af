"""Into a new embedding space: everybody goes over, or the old model stays."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge_rt.core.errors import StorageError
from edge_rt.core.migration import Migration, MigrationPolicy, judge_migration

POLICY = MigrationPolicy(templates=3, apart_s=100.0)
ANNA, BO = np.zeros(8, np.float32), np.full(8, 0.5, np.float32)


def start() -> Migration:
    return Migration("space-2", ("anna", "bo"), 0.6, POLICY)


def visits(migration: Migration, person: str, at: np.ndarray, begin_s: float = 0.0) -> list[bool]:
    return [migration.unlocked(person, 0.5, at, begin_s + 100.0 * k) for k in range(4)]


def test_all_must_have_come() -> None:
    migration = start()
    assert visits(migration, "anna", ANNA) == [True, True, True, False]
    assert not migration.done and migration.progress().waiting == ("bo",)
    assert set(migration.templates()) == {"anna"}
    visits(migration, "bo", BO)
    assert migration.done and migration.progress().migrated == 2
    assert migration.templates()["bo"].shape == (3, 8)


def test_only_the_certain_and_the_new_count() -> None:
    migration = start()
    assert not migration.unlocked("anna", 0.81, ANNA, 0.0)  # nearly a stranger
    assert not migration.unlocked("eve", 0.1, ANNA, 0.0)
    assert migration.unlocked("anna", 0.8, ANNA, 0.0)
    assert not migration.unlocked("anna", 0.1, ANNA, 99.0)  # the same visit
    assert not migration.unlocked("anna", 0.1, np.full(8, np.nan, np.float32), 200.0)


def test_what_does_not_agree_is_not_taken() -> None:
    migration = start()
    assert migration.unlocked("anna", 0.5, ANNA, 0.0)
    assert migration.unlocked("anna", 0.5, ANNA + 0.1, 100.0)
    assert not migration.unlocked("anna", 0.5, BO, 200.0)
    assert migration.unlocked("anna", 0.5, ANNA, 300.0)
    assert np.abs(migration.templates()["anna"]).max() < 0.2


def test_a_wrong_first_one_does_not_stay() -> None:
    migration = start()
    assert migration.unlocked("anna", 0.5, BO, 0.0)
    refused = [migration.unlocked("anna", 0.5, ANNA, 100.0 * k) for k in range(1, 4)]
    assert refused == [False, False, False]
    assert visits(migration, "anna", ANNA, 1000.0) == [True, True, True, False]


def test_who_agrees_is_enrolled_anew_and_who_is_removed_holds_up_nobody() -> None:
    migration = start()
    visits(migration, "anna", ANNA)
    migration.accept_anew("bo")
    assert migration.done and "bo" not in migration.templates()
    migration.follow(("anna", "cleo"))
    assert migration.progress().waiting == ("cleo",)
    migration.follow(("anna",))
    assert migration.done


def test_it_survives_a_restart() -> None:
    migration = start()
    migration.unlocked("anna", 0.5, ANNA, 0.0)
    saved = json.loads(json.dumps(migration.save()))
    other = Migration("space-2", ("anna", "cleo"), 0.6, POLICY)
    other.restore(saved)
    assert not other.unlocked("anna", 0.5, ANNA, 50.0)
    assert other.unlocked("anna", 0.5, ANNA, 100.0)
    assert set(other.progress().waiting) == {"anna", "cleo"}
    for damaged in ({}, {**saved, "space": "space-3"}, {**saved, "persons": [1]}):
        with pytest.raises(StorageError, match="starts anew"):
            other.restore(damaged)


def test_who_is_enrolled_meanwhile_is_waited_for_no_longer() -> None:
    migration = start()
    visits(migration, "anna", ANNA)
    migration.enrol("bo", BO[np.newaxis])
    assert migration.done and migration.templates()["bo"].shape == (1, 8)
    again = start()
    again.restore(migration.save())
    assert again.done


def test_a_model_to_whom_two_people_are_one_gets_no_further() -> None:
    migration = start()
    visits(migration, "anna", ANNA)
    assert not any(visits(migration, "bo", ANNA + 0.01))
    assert judge_migration(migration.progress(), "space-2") is None


def test_one_that_would_let_strangers_in_is_refused() -> None:
    migration = start()
    migration.stranger(2.0, ANNA)  # there is nothing to compare with yet
    visits(migration, "anna", ANNA)
    migration.stranger(1.1, ANNA)  # may be Anna in a bad light
    migration.stranger(2.0, BO)
    assert judge_migration(migration.progress(), "space-2") is None
    migration.stranger(2.0, ANNA)
    verdict = judge_migration(migration.progress(), "space-2")
    assert verdict is not None and not verdict.passed
    assert verdict.figures == {"persons": 2, "migrated": 1, "strangers": 2, "admitted": 1}


def test_when_all_are_ready_it_may_go_live() -> None:
    migration = start()
    visits(migration, "anna", ANNA)
    migration.accept_anew("bo")
    verdict = judge_migration(migration.progress(), "space-2")
    assert verdict is not None and verdict.passed
    assert verdict.reasons == ("2 persons are ready for space-2",)
