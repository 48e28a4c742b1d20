"""What makes two runs repeats of one setting: today's runs and those that were recorded before."""

from __future__ import annotations

from energybench.study.sameness import decides, decisive, setting


def measured(**options):
    return {"measure": {"validate": True, **options}}


def test_one_epoch_at_a_time_is_what_there_was_before_there_was_a_choice():
    assert decisive(measured()) == decisive(measured(validate_every=1)) != decisive(measured(validate_every=4))


def test_null_is_a_value():
    assert decisive(measured(context_s=None)) == measured(context_s=None)
    assert decides("measure.context_s", measured(context_s=None))
    assert decides("+measure.further", measured())


def test_what_changes_nothing_in_a_run_is_left_out():
    assert (
        decisive({**measured(lock="wait", watchdog_s=9.0), "tracking": {}, "sweep": {}, "rerun": "all"}) == measured()
    )
    assert not decides("measure.lock", measured(lock="wait"))


def test_digests_are_those_that_earlier_studies_have_written():
    """A study that goes on knows its cells by them; one that is another runs every cell again."""
    config = {"batch": 8, "seed": 1, "nodes": {"count": 1, "rank": None}, "tracking": {"name": "none"}}
    config |= measured(context_s=None, lock="wait")
    assert setting(config, seed=True) == "7e8d8757344c08ac"
    assert setting(config, seed=False) == "31ceb15d91532b43"
    two = {**config, "nodes": {"count": 2, "rank": 1, "rendezvous": "x", "join_timeout_s": 9.0}}
    assert setting(two, seed=True) == "4b3eec44d32978e4"
    assert setting({**config, "nodes": None}, seed=True) == "7e8d8757344c08ac"
