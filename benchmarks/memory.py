"""Memory predicted from a description against memory used in training: runs on whatever trains here."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from pairs import write

SETTINGS = [
    ["model=caffenet", "batch=32"],
    ["model=caffenet", "batch=64"],
    ["model=resnetim", "batch=8"],
    ["model=resnetim", "batch=16"],
    ["model=resnet", "dataset=synthetic_gait", "batch=32"],
    ["model=resnet", "dataset=synthetic_gait", "batch=64"],
    ["model=cnn2d", "dataset=synthetic_gait", "batch=32"],
    ["model=cnn2d", "dataset=synthetic_gait", "batch=64"],
]


def measured(overrides: list[str]) -> tuple[float, float]:
    """Predicted and used bytes."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "energybench", *overrides, "tracking=none", "measure.warmup_steps=0"]
        settings = ["budget.epochs=null", "budget.steps=3", "dataset.images=64", f"hydra.run.dir={directory}"]
        subprocess.run([*command, *settings], check=True, stdout=subprocess.DEVNULL)
        metrics = json.loads(Path(directory, "result.json").read_text())["metrics"]
    return metrics["memory_predicted_bytes"], metrics["memory_peak_bytes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    given = parser.parse_args()
    seen = []
    print("| setting | predicted (MB) | used (MB) | used / predicted |\n| --- | ---: | ---: | ---: |")
    for overrides in SETTINGS:
        predicted, used = measured(overrides)
        print(
            f"| {' '.join(overrides)} | {predicted / 1e6:,.0f} | {used / 1e6:,.0f} | {used / predicted:.2f} |",
            flush=True,
        )
        seen.append({"overrides": overrides, "predicted_bytes": predicted, "used_bytes": used})
    write(given.json, {"memory": seen})


if __name__ == "__main__":
    main()
