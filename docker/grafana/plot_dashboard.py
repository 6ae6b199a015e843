"""Plot what the dashboard shows, where there is no Grafana: every panel's queries, asked of a running Prometheus.

.venv/bin/python docker/grafana/plot_dashboard.py http://127.0.0.1:9090 dashboard.png --minutes 10
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import httpx
import matplotlib

matplotlib.use("Agg")  # before pyplot is imported: a server has no screen
from matplotlib import pyplot as plt

DASHBOARD = Path(__file__).resolve().parent / "dashboards" / "restoration.json"
COLUMNS = 3
POINTS = 200
UNITS = {"short": "", "percentunit": ", share", "s": ", seconds", "reqps": ", per second", "bytes": ", bytes"}
"""Grafana's names, in words."""
Series = tuple[str, list[float], list[float]]
"""Legend, seconds before now, values."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prometheus", help="its address, such as http://127.0.0.1:9090")
    parser.add_argument("output", type=Path, help="the PNG to write")
    parser.add_argument("--minutes", type=float, default=10.0, help="how far to look back")
    arguments = parser.parse_args()
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    with httpx.Client(base_url=arguments.prometheus) as prometheus:
        plot(panels, prometheus, arguments.minutes * 60, arguments.output)


def plot(panels: list[dict[str, Any]], prometheus: httpx.Client, seconds: float, output: Path) -> None:
    num_rows = -(-len(panels) // COLUMNS)
    figure, all_axes = plt.subplots(num_rows, COLUMNS, figsize=(6 * COLUMNS, 3 * num_rows), layout="constrained")
    for axes, panel in zip(all_axes.flat, panels, strict=False):
        for target in panel["targets"]:
            for legend, times, values in ask_range(prometheus, target, seconds):
                marker = "." if len(times) < 10 else None
                axes.plot(times, values, label=legend, marker=marker, clip_on=False)  # a line at 0 is one, too
        unit = panel["fieldConfig"]["defaults"].get("unit", "short")
        axes.set_title(f"{panel['title']}{UNITS[unit]}")
        axes.set_xlim(-seconds, 0)
        axes.set_ylim(bottom=0)
        if axes.lines:
            axes.legend(fontsize="small")
        else:
            axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color="red")
    figure.savefig(output, dpi=60)


def ask_range(prometheus: httpx.Client, target: dict[str, Any], seconds: float) -> list[Series]:
    now = time.time()
    query = {"query": target["expr"], "start": now - seconds, "end": now, "step": seconds / POINTS}
    answer = prometheus.get("/api/v1/query_range", params=query).raise_for_status().json()
    found = []
    for series in answer["data"]["result"]:
        times = [at - now for at, _ in series["values"]]
        values = [float(value) for _, value in series["values"]]
        found.append((legend_of(target, series["metric"]), times, values))
    return found


def legend_of(target: dict[str, Any], labels: dict[str, str]) -> str:
    """The legend's template, filled as Grafana does."""
    legend: str = target["legendFormat"]
    for name, value in labels.items():
        legend = legend.replace(f"{{{{{name}}}}}", value)
    return legend


if __name__ == "__main__":
    main()
