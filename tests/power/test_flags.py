"""Every flag that the code gives is known by name and explained."""

from __future__ import annotations

import re
from pathlib import Path

from energybench.power.condition_summary import FLAGGED
from energybench.power.flags import FLAGS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "quality.md").read_text()
GIVEN = re.compile(r'\badd\(\s*"([a-z_]+)"(?: if .* else "([a-z_]+)")?')


def test_the_page_explains_every_flag_and_no_other():
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(FLAGS)


def test_what_the_code_gives_has_a_name():
    files = ["energybench/power/quality.py", "energybench/run/supervisor.py", "energybench/run/quiet.py"]
    given = {flag for file in files for pair in GIVEN.findall((ROOT / file).read_text()) for flag in pair if flag}
    assert {"no_readings", "gaps", "few_updates", "idle_not_idle", "shared_host", "shared_card"} <= given
    summary = (ROOT / "energybench/power/condition_summary.py").read_text()
    verdicts = set(re.findall(r'^        "([a-z_]+)": ', summary, re.MULTILINE))
    assert {"clocks_moved", "hot_start", "multi_instance"} <= verdicts
    assert given | verdicts | set(FLAGGED.values()) <= FLAGS.keys()
