"""Write dashboards/restoration.json: what the person on call needs at a glance, then what explains it.

    .venv/bin/python docker/grafana/make_dashboard.py

Built with Grafana's own types, so that a misspelt option fails here and not on somebody's screen.
"""

from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode, BigValueTextMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode

DASHBOARD = Path(__file__).resolve().parent / "dashboards" / "restoration.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
COLUMNS = 24
GREEN, RED = "green", "red"

RESTORE = 'route="/restore"'
FAILING_SHARE = (
    f'(sum(rate(http_requests_total{{{RESTORE},status=~"5.."}}[5m])) or vector(0))'
    f" / sum(rate(http_requests_total{{{RESTORE}}}[5m]))"
)


@dataclass(frozen=True)
class Query:
    expression: str
    legend: str


@dataclass(frozen=True)
class Figure:
    """A number, green or red; `release` shows its name instead."""

    title: str
    query: Query
    description: str
    unit: str = "short"
    red_from: float | None = None
    red_below: float | None = None
    shows_name: bool = False


@dataclass(frozen=True)
class Graph:
    title: str
    queries: tuple[Query, ...]
    description: str
    unit: str = "short"


def quantile(share: float) -> str:
    rate = f'rate(http_request_duration_seconds_bucket{{method="POST",{RESTORE}}}[5m])'
    return f"histogram_quantile({share}, sum by (le) ({rate}))"


def mean(histogram: str) -> str:
    return f"sum(rate({histogram}_sum[5m])) / sum(rate({histogram}_count[5m]))"


FIGURES = (
    Figure("Ready", Query("min(restore_ready)", "ready"), "0: an instance restores nothing", red_below=1),
    Figure("Release", Query("restore_model_info", "{{version}}"), "Served, by every instance", shows_name=True),
    Figure("Store", Query("min(restore_model_store_up)", "store"), "0: an instance cannot read its store", red_below=1),
    Figure("Refused", Query("max(restore_releases_refused)", "refused"), "GET /models says why", red_from=1),
    Figure(
        "Alerts",
        Query('count(ALERTS{alertstate="firing"}) or vector(0)', "firing"),
        "Firing now; Prometheus names them",
        red_from=1,
    ),
    Figure("Failing", Query(FAILING_SHARE, "5xx"), "Share of photos with a 5xx", "percentunit", red_from=0.05),
    Figure("p95", Query(quantile(0.95), "p95"), "Of POST /restore, upload included", "s", red_from=60),
    Figure(
        "Queue",
        Query("max(restore_requests_in_progress / restore_requests_limit)", "of the limit"),
        "Photos held, of those that may be",
        "percentunit",
        red_from=0.8,
    ),
)

GRAPHS = (
    Graph(
        "Answers",
        (Query(f"sum by (status) (rate(http_requests_total{{{RESTORE}}}[5m]))", "{{status}}"),),
        "To POST /restore, by status",
        "reqps",
    ),
    Graph(
        "Refused or failed",
        (Query("sum by (reason) (rate(restore_rejected_total[5m]))", "{{reason}}"),),
        "By problem; docs/api.md explains each",
        "reqps",
    ),
    Graph(
        "How long an answer takes",
        tuple(Query(quantile(share), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)),
        "From the request's head to the answer's end",
        "s",
    ),
    Graph(
        "Where the time goes",
        tuple(Query(mean(f"restore_{stage}_seconds"), stage) for stage in ("queue", "decode", "infer", "encode")),
        "Seconds of a photo, on average",
        "s",
    ),
    Graph(
        "Photos waiting or in the works",
        (
            Query("sum by (instance) (restore_requests_in_progress)", "{{instance}}"),
            Query("min(restore_requests_limit)", "limit"),
        ),
        "Above the limit, photos get 503",
    ),
    Graph(
        "Tiles waiting",
        (Query("sum by (instance) (restore_queue_tiles)", "{{instance}}"),),
        "In front of the device; it grows while photos come faster than they are restored",
    ),
    Graph(
        "Device busy",
        (Query("sum by (instance) (rate(restore_device_busy_seconds_total[1m]))", "{{instance}}"),),
        "Share of the time in which a batch was computed; near 1, more instances are needed",
        "percentunit",
    ),
    Graph(
        "Device memory",
        (
            Query("restore_device_memory_used_bytes", "used, {{instance}}"),
            Query("restore_device_memory_total_bytes", "total, {{instance}}"),
        ),
        "The GPU's; on a CPU the process's, and what it may have",
        "bytes",
    ),
    Graph(
        "Restored",
        (Query("sum(rate(restore_pixels_total[5m])) / 1e6", "megapixels per second"),),
        "Megapixels a second",
    ),
    Graph(
        "Tiles computed",
        (
            Query("sum by (stage) (rate(restore_tiles_total[5m]))", "{{stage}} per second"),
            Query(mean("restore_batch_size"), "tiles in a batch"),
        ),
        "By stage; small batches mean that photos come one at a time",
    ),
    Graph(
        "Damage found",
        (
            Query("restoration:damage_ratio:mean1h", "mean of the last hour"),
            Query("restoration:damage_ratio:mean7d", "mean of the last week"),
        ),
        "Share of a photo that was taken for damage; apart, other photos come, or a release sees otherwise",
        "percentunit",
    ),
    Graph(
        "Releases loaded",
        (Query("sum by (result) (increase(restore_model_reload_total[1h]))", "{{result}}"),),
        "In the last hour; refused ones are explained at GET /models",
    ),
)


def main() -> None:
    DASHBOARD.write_text(as_json(), encoding="utf-8")


def as_json() -> str:
    builder = (
        dashboard.Dashboard("Photo restoration")
        .uid("photo-restoration")
        .tags(["photo-restoration"])
        .time("now-1h", "now")
        .refresh("15s")
        .readonly()
    )
    for figure in FIGURES:
        builder.with_panel(figure_panel(figure))
    for graph in GRAPHS:
        builder.with_panel(graph_panel(graph))
    return JSONEncoder(sort_keys=True, indent=2).encode(builder.build()) + "\n"


def figure_panel(figure: Figure) -> stat.Panel:
    panel = (
        stat.Panel()
        .title(figure.title)
        .description(figure.description)
        .datasource(SOURCE)
        .unit(figure.unit)
        .height(4)
        .span(COLUMNS // len(FIGURES))
        .with_target(target(figure.query, "A"))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(thresholds(figure))
        .color_mode(BigValueColorMode.BACKGROUND)
        .graph_mode(BigValueGraphMode.NONE)
    )
    return panel.text_mode(BigValueTextMode.NAME) if figure.shows_name else panel


def thresholds(figure: Figure) -> dashboard.ThresholdsConfig:
    steps = [Threshold(color=GREEN)]
    if figure.red_from is not None:
        steps = [Threshold(color=GREEN), Threshold(value=figure.red_from, color=RED)]
    if figure.red_below is not None:
        steps = [Threshold(color=RED), Threshold(value=figure.red_below, color=GREEN)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def graph_panel(graph: Graph) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(graph.title)
        .description(graph.description)
        .datasource(SOURCE)
        .unit(graph.unit)
        .min(0)
        .height(7)
        .span(COLUMNS // 3)
        .fill_opacity(10)
    )
    for ref_id, query in zip("ABCD", graph.queries, strict=False):
        panel.with_target(target(query, ref_id))
    return panel


def target(query: Query, ref_id: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(ref_id)


if __name__ == "__main__":
    main()
