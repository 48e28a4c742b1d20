"""From looks at a card to a summary and flags: arithmetic on looks made by hand."""

from __future__ import annotations

import pytest

from energybench.power.condition_summary import Summary, Times, flags, foreign, summarise
from energybench.power.conditions import Condition, Process
from energybench.power.monitor import Observed

S = 1_000_000_000
TIMES = Times(idle=(0, 10 * S), train=((20 * S, 30 * S), (40 * S, 50 * S)), workers=(11 * S, 60 * S))


def look(time_s, pids=None, ours=(), **told):
    processes = None if pids is None else tuple(Process(pid) for pid in pids)
    return Observed(Condition("gpu.0", round(time_s * S), processes=processes, **told), frozenset(ours))


def every_second(told, start=0, end=60, step=1):
    """One look a second; `told(second)` gives what it tells."""
    return [look(second + 0.5, **told(second)) for second in range(start, end, step)]


class TestSummary:
    def test_temperatures(self):
        found = summarise(every_second(lambda second: {"temperature_c": 30 + second}), TIMES)
        assert found.temperature_begin_c in (40, 41)
        assert found.temperature_start_c in (49, 50)
        assert found.temperature_end_c in (79, 80)
        assert found.temperature_max_c == 79
        assert found.cooling_c == 0

    def test_a_card_that_cools_in_the_baseline(self):
        found = summarise(every_second(lambda second: {"temperature_c": 70 - second}), TIMES)
        assert found.cooling_c == 9

    def test_clocks_are_those_of_work(self):
        def told(second):
            waits = second == 45
            return {"sm_mhz": 300 if waits else 1000 + second, "slowdowns": ("idle",) if waits else ()}

        found = summarise(every_second(told), TIMES)
        assert (found.clock_sm_min_mhz, found.clock_sm_max_mhz) == (1021, 1049)

    def test_the_first_second_is_left_out_where_there_is_more(self):
        ramp = every_second(lambda second: {"sm_mhz": 200 if second < 21 else 1000})
        assert summarise(ramp, TIMES).clock_sm_min_mhz == 1000
        assert summarise(ramp[:21], TIMES).clock_sm_min_mhz == 200

    def test_slowdowns_are_shares_of_the_time_between_looks(self):
        looks = [
            look(20, slowdowns=("power_cap",)), look(22, slowdowns=()), look(29, slowdowns=("power_cap", "thermal")),
            look(35, slowdowns=("sync_boost",)), look(40, slowdowns=()),
        ]  # fmt: skip
        found = summarise(looks, TIMES).slowdowns
        assert found == {"power_cap": pytest.approx(3 / 20), "thermal": pytest.approx(1 / 20)}

    def test_limits_and_the_rest(self):
        def told(second):
            return {
                "power_limit_w": 200.0 if second == 41 else 250.0, "default_limit_w": 250.0, "multi_instance": False,
                "utilization": 0.3 if second == 3 else 0.0, "max_sm_mhz": 1900,
            }  # fmt: skip

        found = summarise(every_second(told), TIMES)
        assert (found.power_limit_w, found.power_limit_default_w) == (200.0, 250.0)
        assert (found.multi_instance, found.idle_utilization, found.clock_sm_limit_mhz) == (False, 0.0, 1900)

    def test_what_is_not_told_is_absent(self):
        assert summarise(every_second(lambda second: {}), TIMES).to_json() == {}
        assert summarise([], TIMES).to_json() == {}
        assert summarise([], Times(None, (), None)).to_json() == {}

    def test_a_training_between_two_looks(self):
        looks = [
            look(5, temperature_c=40, sm_mhz=500, slowdowns=()),
            look(70, temperature_c=50, sm_mhz=900, slowdowns=()),
        ]
        assert summarise(looks, TIMES).to_json() == {
            "temperature_begin_c": 40, "temperature_start_c": 40, "temperature_end_c": 50
        }  # fmt: skip

    def test_json_is_plain(self):
        found = summarise(every_second(lambda second: {"pids": [7]}), TIMES).to_json()
        assert found == {"foreign_processes": [7], "left_after_idle": []}


class TestForeign:
    def test_pids_of_this_system(self):
        looks = [look(5, [1]), look(25, [1, 100, 101, 7], ours=[100, 101]), look(65, [1])]
        assert foreign(looks, TIMES) == {1, 7}

    def test_one_that_came_while_we_trained(self):
        looks = [look(5, []), look(25, [100], ours=[100]), look(45, [100, 7], ours=[100])]
        assert foreign(looks, TIMES) == {7}

    def test_pids_of_the_host_what_was_there_before_or_stays_after_is_foreign(self):
        looks = [look(5, [9001]), look(25, [9001, 9002, 9003]), look(65, [9001, 9003])]
        assert foreign(looks, TIMES) == {9001, 9003}

    def test_pids_of_the_host_what_came_and_went_with_the_workers_is_theirs(self):
        assert foreign([look(5, []), look(25, [9002]), look(65, [])], TIMES) == frozenset()

    def test_no_list_of_processes(self):
        assert foreign([look(5), look(25)], TIMES) is None

    def test_no_worker_was_started(self):
        assert foreign([look(5, [7])], Times(None, (), None)) == {7}

    def test_only_what_was_there_in_training_is_told(self):
        looks = [look(5, [1, 2]), look(25, [2, 100], ours=[100]), look(65, [3])]
        found = summarise(looks, TIMES)
        assert (found.foreign_processes, found.left_after_idle) == ((2,), (1,))


CLOCKS = {"clock_sm_min_mhz": 1000.0, "clock_sm_median_mhz": 1300.0, "clock_sm_max_mhz": 1400.0}


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ({}, []),
        ({"slowdowns": {"idle": 1.0, "clocks_setting": 1.0, "reliability": 1.0}}, []),
        ({"slowdowns": {"thermal": 0.02}}, ["throttled_thermal"]),
        ({"slowdowns": {"thermal": 0.005}}, []),
        ({"slowdowns": {"hw_slowdown": 0.5}}, ["throttled_hw_slowdown"]),
        ({"slowdowns": {"hw_slowdown": 0.5, "power_brake": 0.5}}, ["throttled_power_brake"]),
        ({"slowdowns": {"sync_boost": 0.5}}, ["throttled_sync_boost"]),
        ({"slowdowns": {"power_cap": 0.9}}, []),
        ({"slowdowns": {"power_cap": 0.9}, "power_limit_w": 250.0, "power_limit_default_w": 250.0}, []),
        (
            {"slowdowns": {"power_cap": 0.9}, "power_limit_w": 200.0, "power_limit_default_w": 250.0},
            ["power_limit_below_default", "throttled_power"],
        ),
        ({"power_limit_w": 200.0, "power_limit_default_w": 250.0}, ["power_limit_below_default"]),
        ({"power_limit_w": 300.0, "power_limit_default_w": 250.0}, []),
        (CLOCKS, ["clocks_moved"]),
        ({**CLOCKS, "slowdowns": {"power_cap": 0.9}}, []),
        ({**CLOCKS, "slowdowns": {"idle": 0.9}}, ["clocks_moved"]),
        ({**CLOCKS, "clock_sm_min_mhz": 1300.0}, []),
        ({"foreign_processes": (7,)}, ["foreign_processes"]),
        ({"foreign_processes": ()}, []),
        ({"left_after_idle": (7,)}, ["idle_not_idle"]),
        ({"idle_utilization": 0.5}, ["idle_not_idle"]),
        ({"cooling_c": 3.0}, ["hot_start"]),
        ({"cooling_c": 2.0, "temperature_begin_c": 51.0}, []),
        ({"temperature_begin_c": 51.5}, ["hot_start"]),
        ({"multi_instance": True}, ["multi_instance"]),
    ],
)
def test_flags(summary, expected):
    assert flags(Summary(**summary), cooldown_c=50.0) == expected


def test_without_a_temperature_asked_for_none_is_too_high():
    assert flags(Summary(temperature_begin_c=90.0)) == []
