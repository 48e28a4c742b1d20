"""How long the report of many runs takes from a tracking store, how large its page is, and how much memory."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pairs import write
from study_store import fill

from energybench.run.result import Result


def timed(store: str, directory: str) -> dict[str, float]:
    """Reading, working out and writing the page, in this process; seconds, and the process's peak memory in MiB."""
    from energybench.study.collect import collect
    from energybench.study.report.contents import contents
    from energybench.study.report.page import render

    begun = time.perf_counter()
    found = collect(["many"], uri=f"sqlite:///{store}")
    read = time.perf_counter()
    made = contents(found)
    worked_out = time.perf_counter()
    page = Path(directory, "report.html")
    page.write_text(render(made), encoding="utf-8")
    return {
        "runs": len(found.results),
        "settings": sum(len(group.settings.rows) for group in made.groups),
        "read_s": read - begun,
        "work_out_s": worked_out - read,
        "render_s": time.perf_counter() - worked_out,
        "page_mib": page.stat().st_size / 2**20,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "cpu_s": time.process_time(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("like", type=Path, help="result.json of a real run: its configuration and metrics are kept")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--store", help="an SQLite file to keep; it is filled unless it exists (a temporary one)")
    parser.add_argument("--json")
    parser.add_argument("--only-write", metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only_write:
        print(json.dumps(timed(given.store, given.only_write)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(given.store or Path(folder, "mlflow.db")).absolute()
        if not path.exists():
            fill(f"sqlite:///{path}", "many", given.runs, Result.read(given.like))
        command = [sys.executable, __file__, str(given.like), "--store", str(path), "--only-write", folder]
        begun = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seen = {**json.loads(done.stdout), "process_s": time.perf_counter() - begun}
    print(
        f"{seen['runs']:,.0f} runs, {seen['settings']:,.0f} settings: read {seen['read_s']:.2f} s, "
        f"worked out and drawn {seen['work_out_s']:.2f} s, written {seen['render_s']:.2f} s; whole process "
        f"{seen['process_s']:.2f} s ({seen['cpu_s']:.2f} s of CPU), peak {seen['peak_mib']:.0f} MiB, "
        f"page {seen['page_mib']:.1f} MiB"
    )
    write(given.json, seen)


if __name__ == "__main__":
    main()
