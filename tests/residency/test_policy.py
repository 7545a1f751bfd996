"""The policy by hand, under a clock that the test turns: who is loaded, who goes, who waits, and for how long."""

from __future__ import annotations

import pytest
from sie_frontend.residency.policy import Policy
from sie_frontend.residency.state import Load, Rules, Stage, Unload

from residency.driver import Driver, Storm, unit

FOUR = [unit(name) for name in "pqrs"]
HINT = Rules().hint_s
GONE = HINT + Rules().slack_s + 0.1


def loads(driver: Driver) -> list[str]:
    return [command.unit for command in driver.log if isinstance(command, Load)]


def unloads(driver: Driver) -> list[str]:
    return [command.unit for command in driver.log if isinstance(command, Unload)]


def resident(driver: Driver, *names: str) -> None:
    """Ask for these, one after the other, and answer each."""
    for name in names:
        if not driver.ask(name):
            driver.finish()
            assert driver.ask(name)
        driver.answer(name)
        driver.wait(0.1)


def test_nothing_is_loaded_before_it_is_asked_for_and_then_once() -> None:
    driver = Driver(FOUR, Rules())
    assert driver.log == []
    for _ in range(50):
        assert not driver.ask("p")
    assert loads(driver) == ["p"]
    driver.finish()
    assert driver.ask("p")
    assert loads(driver) == ["p"]


def test_without_a_budget_all_load_side_by_side_and_each_is_ready_when_it_is() -> None:
    driver = Driver(FOUR, Rules())
    for name in "pqr":
        driver.ask(name)
    driver.end(driver.under_way[1])
    assert driver.ready == {"q"}


def test_the_one_used_longest_ago_makes_room() -> None:
    driver = Driver(FOUR, Rules(budget=2))
    resident(driver, "p", "q", "p")
    driver.ask("r")
    assert unloads(driver) == ["q"]
    assert loads(driver) == ["p", "q"]  # the memory is not free yet
    driver.finish()
    assert driver.ready == {"p", "r"}


def test_one_with_work_in_flight_is_never_unloaded_and_an_idle_one_goes_before_it() -> None:
    driver = Driver(FOUR, Rules(budget=2))
    resident(driver, "p", "q")
    assert driver.ask("p")
    driver.wait(100)
    driver.ask("r")
    assert unloads(driver) == ["q"]
    driver.finish()
    driver.wait(GONE)
    assert driver.ask("r")
    driver.ask("s")  # both have work in flight: the one that was used longest ago is drained
    assert driver.stage("p") is Stage.DRAINING
    assert unloads(driver) == ["q"]
    driver.answer("p")
    assert unloads(driver) == ["q", "p"]


def test_a_victim_that_is_asked_for_all_the_time_goes_and_comes_back() -> None:
    """Room for one; P is busy, Q is asked for, and P is asked for again and again."""
    driver = Driver(FOUR, Rules(budget=1))
    resident(driver, "p")
    assert driver.ask("p")
    assert not driver.ask("q")
    for _ in range(20):
        driver.wait(0.1)
        assert not driver.ask("p")
    driver.answer("p")
    driver.finish()
    assert driver.stage("q") is Stage.READY
    for _ in range(20):  # Q's caller is not back yet, so that P waits
        driver.wait(0.1)
        assert not driver.ask("p")
    assert driver.ask("q")
    driver.answer("q")
    driver.finish()
    assert driver.stage("p") is Stage.READY
    assert driver.ask("p")


def test_what_became_ready_stays_until_its_callers_are_back_but_not_for_ever() -> None:
    driver = Driver(FOUR, Rules(budget=1))
    assert not driver.ask("p")
    assert not driver.ask("p")
    assert not driver.ask("q")
    driver.finish()
    assert driver.ready == {"p"}
    driver.wait(HINT)
    assert driver.ask("p")
    driver.answer("p")
    assert not driver.ask("q")  # one of P's callers is still expected
    assert driver.ready == {"p"}
    driver.wait(GONE - HINT)  # and does not come
    driver.finish()
    assert driver.ready == {"q"}


def test_a_model_beyond_the_budget_is_refused_at_once_and_moves_nobody() -> None:
    driver = Driver([unit("p"), unit("q"), unit("large")], Rules(budget=100), {"p": 30, "q": 30, "large": 150})
    resident(driver, "p", "q")
    for _ in range(5):
        assert not driver.ask("large")
        failure = driver.policy.residences["large"].failure
        assert failure is not None and failure.permanent and "memory budget" in failure.message
    assert unloads(driver) == []
    assert driver.ready == {"p", "q"}
    driver.policy.see("large", 60)  # it was built again, smaller
    assert not driver.ask("large")
    driver.finish()
    assert "large" in driver.ready


def test_pinned_ones_are_loaded_stay_and_leave_less_for_the_others() -> None:
    driver = Driver([unit("p", pinned=True), *FOUR[1:]], Rules(budget=2, idle_s=1), {"s": 2})
    assert loads(driver) == ["p"]
    driver.finish()
    driver.wait(1000)
    assert driver.ready == {"p"}
    resident(driver, "q", "r")
    assert "p" not in unloads(driver)
    driver.ask("s")
    assert driver.policy.residences["s"].failure is not None


def test_nothing_is_evicted_for_one_that_would_have_no_room_all_the_same() -> None:
    driver = Driver(FOUR, Rules(budget=3), {"p": 1, "q": 2, "r": 3})
    resident(driver, "p")
    assert not driver.ask("q")
    driver.finish()  # Q's caller is expected: Q stays
    driver.ask("r")
    assert driver.ready == {"p", "q"}
    driver.wait(GONE)
    driver.ask("r")
    assert sorted(unloads(driver)) == ["p", "q"]


def test_small_ones_are_not_evicted_where_a_large_one_alone_is_enough() -> None:
    driver = Driver(FOUR, Rules(budget=4), {"p": 1, "q": 3, "r": 3})
    resident(driver, "p", "q")
    driver.ask("r")
    assert unloads(driver) == ["q"]


def test_a_wait_ends_when_nobody_comes_back_and_so_does_the_eviction_for_it() -> None:
    driver = Driver(FOUR, Rules(budget=1))
    resident(driver, "p")
    assert driver.ask("p")
    driver.ask("q")
    assert (driver.stage("p"), driver.stage("q")) == (Stage.DRAINING, Stage.WAITING)
    driver.wait(GONE)
    assert (driver.stage("p"), driver.stage("q")) == (Stage.READY, Stage.ABSENT)
    assert driver.ask("p")


def test_idle_ones_go_after_their_time() -> None:
    driver = Driver(FOUR, Rules(idle_s=60))
    resident(driver, "p", "q")
    assert driver.ask("q")
    driver.wait(59)
    assert driver.ready == {"p", "q"}
    driver.wait(1.5)
    driver.finish()
    assert driver.ready == {"q"}
    driver.answer("q")
    driver.wait(61)
    driver.finish()
    assert driver.ready == set()


def test_a_failure_cools_down_ever_longer_and_a_repair_ends_it() -> None:
    driver = Driver(FOUR, Rules(cooldown_s=10, max_cooldown_s=30))
    driver.ask("p")
    for attempt, cooldown in ((1, 10), (2, 20), (3, 30), (4, 30)):
        driver.end(driver.under_way[0], fails=True)
        driver.finish()
        residence = driver.policy.residences["p"]
        assert residence.stage is Stage.FAILED
        assert residence.failure is not None and residence.failure.attempts == attempt
        driver.wait(cooldown - 0.1)
        driver.ask("p")
        assert residence.stage is Stage.FAILED and not driver.under_way
        driver.wait(0.2)
        driver.ask("p")
        assert driver.stage("p") is Stage.LOADING
    driver.finish()
    assert driver.ask("p")
    assert (driver.policy.residences["p"].failure, driver.policy.residences["p"].attempts) == (None, 0)


def test_what_a_failed_load_has_loaded_is_unloaded_before_the_next_gets_its_memory() -> None:
    units = [unit("p", "encoder", "head", "p"), unit("q", "other", "q")]
    driver = Driver(units, Rules(budget=3), {"p": 0, "q": 0, "encoder": 2, "head": 1, "other": 2})
    driver.ask("p")
    driver.ask("q")
    driver.end(driver.under_way[0], fails=True)
    [command] = driver.under_way
    assert isinstance(command, Unload) and command.parts == ("p", "head", "encoder")
    assert driver.policy.used() == 3
    driver.end(command)
    assert loads(driver) == ["p", "q"]
    driver.finish()
    assert driver.policy.used() == 2


def test_what_is_loaded_and_nobodys_goes_and_counts_until_it_is_gone() -> None:
    units = [unit("p", "encoder", "head", "p"), unit("q", "encoder", "q"), unit("r")]
    driver = Driver(units, Rules(budget=3, cooldown_s=100), {"p": 0, "q": 1, "encoder": 2, "head": 1, "r": 3})
    driver.ask("p")
    driver.end(driver.under_way[0], fails=True)
    driver.finish()
    assert driver.stage("p") is Stage.FAILED
    driver.loaded.update(("encoder", "head"))  # it ends after all
    driver.policy.stray({"encoder", "head", "r"})
    driver.loaded.add("r")
    commands = driver.policy.step(driver.now)
    assert {(one.unit, one.parts) for one in commands} == {("p", ("head", "encoder")), ("r", ("r",))}
    assert driver.policy.used() == 6  # what is true, be it beyond the budget
    assert not driver.policy.admit("q", driver.now) and driver.policy.step(driver.now) == []
    for command in commands:
        driver.policy.unloaded(command.unit, driver.now)
        driver.loaded.difference_update(command.parts)
    assert driver.stage("p") is Stage.FAILED
    driver.step()
    driver.finish()
    assert driver.ready == {"q"} and driver.policy.used() == 3
    driver.policy.stray({"encoder", "q"})  # a look from before it was asked for
    assert driver.policy.step(driver.now) == [] and driver.ready == {"q"}


def test_a_triton_that_does_not_answer_is_no_failure_of_the_model() -> None:
    driver = Driver(FOUR, Rules())
    driver.ask("p")
    driver.end(driver.under_way[0], reachable=False)
    driver.finish()
    assert driver.stage("p") is Stage.WAITING and not driver.under_way
    driver.wait(1.1)
    driver.finish()
    assert driver.ready == {"p"}


def test_a_shared_part_is_loaded_once_and_stays_while_one_needs_it() -> None:
    units = [unit("text", "t"), unit("both", "t", "i"), unit("other", "o")]
    driver = Driver(units, Rules(budget=3))
    resident(driver, "text", "both", "other")
    assert [command.parts for command in driver.log] == [("t",), ("i",), ("o",)]
    driver.policy.rules = driver.rules = Rules(budget=3, idle_s=50)
    driver.wait(20)
    resident(driver, "both", "other")
    driver.wait(35)
    driver.finish()
    assert driver.log[-1] == Unload("text", (), "idle")
    assert driver.loaded == {"t", "i", "o"}


def test_parts_of_an_ensemble_come_before_it_and_go_after_it() -> None:
    driver = Driver([unit("p", "encoder", "head", "ensemble")], Rules(idle_s=1))
    resident(driver, "p")
    driver.wait(2)
    driver.finish()
    assert driver.log == [
        Load("p", ("encoder", "head", "ensemble")),
        Unload("p", ("ensemble", "head", "encoder"), "idle"),
    ]


def test_what_was_seen_corrects_what_was_expected() -> None:
    driver = Driver(FOUR, Rules(budget=2))
    resident(driver, "p", "q")
    driver.rules = Rules(budget=4)  # what the driver checks; the policy is told of what it has not chosen
    driver.policy.see("q", 2)
    driver.step()
    assert unloads(driver) == ["p"]
    driver.finish()
    assert driver.policy.used() == 2


def test_after_a_restart_of_triton_what_was_ready_is_loaded_again() -> None:
    driver = Driver(FOUR, Rules(budget=2))
    resident(driver, "p", "q")
    driver.loaded.clear()
    for name in "pq":
        driver.policy.gone(name, driver.now)
    driver.step()
    driver.finish()
    assert loads(driver) == ["p", "q", "p", "q"]
    assert driver.ready == {"p", "q"}


def test_what_triton_holds_already_is_adopted() -> None:
    policy = Policy(FOUR, dict.fromkeys("pqrs", 1), Rules(budget=1))
    policy.adopt("p", 0.0)
    assert policy.step(0.0) == []
    assert policy.admit("p", 0.0)


SHARED = [
    unit("text", "t"),
    unit("both", "t", "i"),
    unit("one", "e", "h1", "one"),
    unit("two", "e", "h2", "two"),
    unit("pin", "n", pinned=True),
    unit("huge", "g"),
]
COSTS = {"t": 3, "i": 2, "e": 4, "h1": 1, "h2": 1, "one": 0, "two": 0, "n": 1, "g": 50}


@pytest.mark.parametrize("budget", [None, 6, 9, 12])
def test_no_order_of_events_breaks_a_rule(budget: int | None) -> None:
    """1200 random histories; `Driver` looks at everything after each of their events."""
    units = [one for one in SHARED if budget is not None or one.name != "huge"]
    for seed in range(300):
        storm = Storm(units, Rules(budget=budget, idle_s=3.0, cooldown_s=1.0), COSTS)
        storm.run(seed, 100)
        # Silence: what nobody asks for any more is not waited for.
        storm.wait(20)
        storm.finish()
        storm.wait(20)
        storm.finish()
        assert storm.ready == {"pin"}
        assert storm.policy.used() == COSTS["n"] and storm.loaded == {"n"}
        assert all(
            one.stage in (Stage.ABSENT, Stage.FAILED) for one in storm.policy.residences.values() if not one.unit.pinned
        )


@pytest.mark.parametrize("budget", [None, 9])
def test_whatever_is_replaced_goes_for_good_and_loses_no_work(budget: int | None) -> None:
    """120 random histories in which units are replaced, by others that may share parts with them."""
    units = [one for one in SHARED if one.name != "huge"]
    for seed in range(60):
        storm = Storm(units, Rules(budget=budget, idle_s=3.0, cooldown_s=1.0), COSTS)
        storm.renewing = True
        storm.run(seed, 100)
        for _ in range(3):
            storm.wait(20)
            storm.finish()
        assert storm.retired.isdisjoint(storm.policy.residences)
        pinned = {name for name, one in storm.policy.residences.items() if one.unit.pinned}
        assert len(pinned) == 1 and storm.ready == pinned
        assert storm.loaded == {part for name in pinned for part in storm.policy.residences[name].unit.parts}


def test_a_unit_that_is_retired_finishes_its_work_and_takes_no_more() -> None:
    driver = Driver(FOUR, Rules())
    resident(driver, "p")
    assert driver.ask("p")
    driver.add(unit("p'"))
    driver.retire("p")
    assert unloads(driver) == [] and driver.stage("p") is Stage.DRAINING
    driver.answer("p")
    assert unloads(driver) == ["p"]
    driver.finish()
    assert "p" not in driver.policy.residences and not driver.ask("p'")


def test_a_unit_that_is_retired_while_it_loads_is_unloaded_then() -> None:
    driver = Driver(FOUR, Rules())
    driver.ask("p")
    driver.ask("q")
    driver.retire("p")
    driver.finish()
    assert unloads(driver) == ["p"] and "p" not in driver.policy.residences and driver.ready == {"q"}


def test_whoever_goes_on_asking_is_served_in_the_end() -> None:
    """Six units in turn for a budget of two, every caller comes back after the hint: nobody starves."""
    names = "abcdef"
    for seed in range(10):
        driver = Storm([unit(name) for name in names], Rules(budget=2))
        waiting = dict.fromkeys(names, 6)
        due = {name: seed % 5 * 0.1 * index for index, name in enumerate(names)}
        while any(waiting.values()) and driver.now < 600:
            driver.wait(0.1)
            for name in names:
                if waiting[name] and driver.now >= due[name]:
                    if driver.ask(name):
                        driver.answer(name)
                        waiting[name] -= 1
                        due[name] = driver.now
                    else:
                        due[name] = driver.now + HINT
            driver.finish()
        assert not any(waiting.values()), waiting
