"""Every quality flag: its name and what it says against a result. docs/quality.md says what to do about each."""

from __future__ import annotations

FLAGS = {
    "no_readings": "a sensor gave no energy at all",
    "gaps": "readings cover less than 99 % of the training",
    "few_updates": "a sensor gave fewer than 60 readings in the training",
    "sources_disagree": "two sources of one sensor tell different energies",
    "part_time_sampling": "the sensor sees only a part of the time, and no other source sees the rest",
    "throttled_thermal": "the card was too hot for its clocks",
    "throttled_power": "the card met a power limit below its default",
    "throttled_power_brake": "an external signal, as from the power supply, held the card back",
    "throttled_hw_slowdown": "the card's hardware held its clocks back for a reason that it does not tell",
    "throttled_sync_boost": "another card of its group held its clocks back",
    "clocks_moved": "the card's clock moved by more than a tenth, and no reason was told",
    "foreign_processes": "processes that are not of this run were on the card while it trained",
    "hot_start": "the card was still cooling, or warmer than asked, when the run began",
    "power_limit_below_default": "the card's power limit is below its default",
    "multi_instance": "the card is divided into instances, and its power is that of all of them",
    "idle_not_idle": "the baseline was not steady, or something ran in it",
    "input_bound": "the devices waited for data in more than 5 % of the training",
    "shared_card": "another measured run held the card, and measure.lock=ignore let this one go on",
    "shared_host": "another run was on the CPU at the same time, and an estimate cannot tell the two apart",
    "cut_attempt": "an earlier attempt was killed with its supervisor, and what it took at its end is not known",
}
"""Flag -> what it says, in one line."""
