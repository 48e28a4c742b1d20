"""How long `python -m energybench --cfg job` takes against a minimal Hydra application, whole processes in turn."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pairs import alternate, ratio_line, write

APPLICATION = """
import hydra

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    pass

main()
"""


def seconds(command: list[str], directory: str) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        conf = Path(directory, "conf")
        (conf / "db").mkdir(parents=True)
        (conf / "config.yaml").write_text("defaults:\n  - _self_\n  - db: a\nx: 1\n")
        (conf / "db" / "a.yaml").write_text("y: 1\n")
        Path(directory, "application.py").write_text(APPLICATION)
        ours, minimal = alternate(
            lambda: seconds([sys.executable, "-m", "energybench", "--cfg", "job"], directory),
            lambda: seconds([sys.executable, "application.py", "--cfg", "job"], directory),
            given.rounds,
        )
    print(ratio_line("--cfg job against a minimal Hydra application", ours, minimal, "s"))
    write(given.json, {"energybench_s": ours, "minimal_s": minimal})


if __name__ == "__main__":
    main()
