"""When a model that died is loaded again: the rules alone, by a clock of the test's."""

from __future__ import annotations

import pytest

from sie_triton.embedded.healing import HealingRules, Patients

RULES = HealingRules(first_delay=1.0, max_delay=8.0, healthy=20.0, failing=4)


def test_the_first_death_is_mended_at_once_and_each_further_one_waits_twice_as_long() -> None:
    patients, now, delays = Patients(RULES), 0.0, []
    for times in range(1, 8):
        delays.append(patients.died("p", "it ended", now))
        assert patients.times("p") == times
        assert patients.due(now + delays[-1] - 0.01) == []
        now += delays[-1]
        assert patients.due(now) == ["p"]
        assert patients.is_mending("p") and patients.due(now + 100) == []
        now += 0.5
        patients.mended("p", now)
        now += 19.0  # well for less than a healthy spell
    assert delays == [0.0, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_healthy_spell_forgives_and_only_that_model() -> None:
    patients = Patients(RULES)
    for name in ("p", "q"):
        for now in (0.0, 2.0, 5.0):
            patients.died(name, "it ended", now)
            assert patients.due(now + 2.0) == [name]
            patients.mended(name, now + 2.0)
    assert patients.died("q", "again", 26.0) == 4.0
    troubles = patients.troubles(26.9)
    assert {name: (one.times, one.down, one.failing) for name, one in troubles.items()} == {
        "p": (3, False, False),
        "q": (4, True, True),
    }
    assert troubles["q"].cause == "again"
    assert set(patients.troubles(27.0)) == {"q"}
    assert patients.died("p", "it ended", 27.0) == 0.0
    assert patients.times("p") == 1


def test_a_load_that_fails_counts_as_a_death_and_a_death_in_the_waiting_time_changes_nothing() -> None:
    patients = Patients(RULES)
    assert patients.died("p", "it ended", 0.0) == 0.0
    assert patients.due(0.0) == ["p"]
    assert patients.died("p", "no such file", 1.0) == 1.0
    assert patients.died("p", "its other process ended", 1.5) == 0.5
    assert patients.times("p") == 2
    assert patients.troubles(1.5)["p"].cause == "no such file"


@pytest.mark.parametrize("mending", [False, True])
def test_what_somebody_else_unloaded_is_forgotten(mending: bool) -> None:
    patients = Patients(RULES)
    patients.died("p", "it ended", 0.0)
    if mending:
        patients.due(0.0)
    patients.discharged("p")
    patients.mended("p", 1.0)
    assert patients.due(100.0) == [] and not patients.troubles(0.0)


def test_no_number_of_deaths_is_too_large() -> None:
    patients, now = Patients(RULES), 0.0
    for _ in range(2000):
        now += patients.died("p", "it ended", now)
        patients.due(now)
        patients.mended("p", now)
    assert patients.died("p", "it ended", now) == RULES.max_delay


def test_a_restart_of_the_server_begins_a_spell_of_health() -> None:
    patients = Patients(RULES)
    patients.died("p", "it ended", 0.0)
    patients.restarted(1.0)
    assert patients.due(2.0) == []
    assert not patients.troubles(1.0)["p"].down
    assert not patients.troubles(21.0)
