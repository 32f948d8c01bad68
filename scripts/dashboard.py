#!/usr/bin/env python3
"""Prints the Grafana dashboard; `make dashboard` keeps its output in helm/rename-worker/dashboards/.

A panel is one call below: title, what it tells, unit, queries with their legends. The rest (ids,
places on the grid, colours) follows. Needs nothing but Python's own library.
"""

import json
import sys

# What to look at: the worker's series by namespace and instance, the broker's by vhost and queue.
SEL = 'namespace=~"$namespace",instance=~"$instance"'
QUEUE = 'vhost=~"$vhost",queue=~"$prefix[.]%s"'
RATE = "[$__rate_interval]"

FAILED, RENAME, TOKEN = 'outcome="failed"', 'kind="rename"', 'kind="token"'
TRANSIENT = 'status=~"408|425|429|5..|timeout|connect|reset|garbled"'

GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "text"


# --- queries -------------------------------------------------------------------------------------


def worker(name, labels=""):
    """A series of the worker's, restricted to what is selected."""
    return f"rename_worker_{name}{{{SEL}{',' + labels if labels else ''}}}"


def rate(name, labels="", by=""):
    """Events a second, summed over the workers."""
    return f"sum{f' by ({by}) ' if by else ''}(rate({worker(name, labels)}{RATE}))"


def rate_once_seen(name, by, labels=""):
    """As `rate`, without the label values that have never occurred: there are many, all at zero."""
    ever = f"sum by ({by}) ({worker(name, labels)}) > 0"
    return f"{rate(name, labels, by)} and on ({by}) ({ever})"


def quantile(q, name, labels="", by=""):
    more = f", {by}" if by else ""
    return f"histogram_quantile({q}, sum by (le{more}) (rate({worker(name + '_bucket', labels)}{RATE})))"


def depth(what, queue, by="queue"):
    """Messages in a queue. RabbitMQ names it differently at /metrics/detailed and
    /metrics/per-object, and more than one node may tell of the same queue."""
    name = f"rabbitmq(_detailed)?_queue_{what}"
    found = f'max by (vhost, queue) ({{__name__=~"{name}",{QUEUE % queue}}})'
    return f"sum by ({by}) ({found})" if by else f"sum({found})"


def process(name):
    """A process metric of the workers only: every exporter has these names."""
    return f"{name}{{{SEL}}} and on (job, instance) {worker('build_info')}"


BACKLOG = depth("messages_ready", "requests", by="")
LETTERS = " + ".join(depth(what, "dead-letters", by="") for what in ("messages_ready", "messages_unacked"))
OLDEST = (
    f"(clamp_min(time() - max({worker('queue_head_timestamp_seconds')} > 0), 0)"
    f" and on () ({BACKLOG} > 0)) or on () vector(0)"
)
FAILED_SHARE = (
    f"({rate('outcomes_total', FAILED)} / ({rate('outcomes_total')} > 0)) or on () vector(0)"
)


# --- panels --------------------------------------------------------------------------------------


def steps(*pairs):
    """Thresholds: a base colour, then (from this value on, colour)."""
    base, *rest = pairs
    return {
        "mode": "absolute",
        "steps": [{"color": base, "value": None}] + [{"color": c, "value": v} for v, c in rest],
    }


def words(**by_value):
    """A value told in a word and a colour: words(_0=("fine", GREEN))."""
    options = {
        key.lstrip("_"): {"index": i, "text": text, "color": colour}
        for i, (key, (text, colour)) in enumerate(by_value.items())
    }
    return [{"type": "value", "options": options}]


def colours(**by_name):
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in by_name.items()
    ]


def panel(kind, title, description, unit, queries, w, h, *, thresholds, options, **field):
    custom = field.pop("custom", {})
    overrides = field.pop("overrides", [])
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"w": w, "h": h},
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "thresholds": thresholds,
                "color": {"mode": field.pop("color", "palette-classic")},
                "custom": custom,
                **field,
            },
            "overrides": overrides,
        },
        "options": options,
        "targets": [
            {
                "refId": "ABCDEFGH"[i],
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "expr": expr,
                "legendFormat": legend,
                "range": kind != "stat",
                "instant": kind == "stat",
                "format": "heatmap" if kind == "heatmap" else "time_series",
                "editorMode": "code",
            }
            for i, (expr, legend) in enumerate(queries)
        ],
    }


def stat(title, description, unit, queries, *, w=4, thresholds=None, name=False, **field):
    """One number as of now."""
    return panel(
        "stat", title, description, unit, queries, w, 4,
        thresholds=thresholds or steps(GREY),
        color="thresholds",
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background" if thresholds else "value",
            "graphMode": "none",
            "textMode": "value_and_name" if name else "auto",
            "justifyMode": "auto",
            "orientation": "auto",
        },
        **field,
    )


def lines(title, description, unit, queries, *, w=8, stack=False, thresholds=None, **field):
    """A course over time."""
    return panel(
        "timeseries", title, description, unit, queries, w, 8,
        thresholds=thresholds or steps(GREEN),
        min=field.pop("min", 0),
        custom={
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 25 if stack else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if stack else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if thresholds else "off"},
            "axisSoftMin": 0,
        },
        options={
            "legend": {
                "showLegend": True,
                "displayMode": "table",
                "placement": "bottom",
                "calcs": ["lastNotNull", "max"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        **field,
    )


def heatmap(title, description, unit, query, *, w=8):
    return panel(
        "heatmap", title, description, "short", [(query, "{{le}}")], w, 8,
        thresholds=steps(GREEN),
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5},
            "yAxis": {"unit": unit, "axisPlacement": "left"},
            "cellValues": {"unit": "short"},
            "legend": {"show": True},
            "tooltip": {"mode": "single", "yHistogram": True},
        },
    )


# --- the dashboard -------------------------------------------------------------------------------

ROWS = {
    "Is it healthy now?": [
        stat(
            "Broker connection",
            "Whether every selected worker has a live connection to RabbitMQ. Disconnected workers"
            " try again by themselves; nothing is lost meanwhile.",
            "none",
            [(f"min({worker('broker_connected')})", "all workers")],
            thresholds=steps(RED, (1, GREEN)),
            mappings=words(_0=("disconnected", RED), _1=("connected", GREEN)),
        ),
        stat(
            "Hold",
            "Held: the API is down (api) or refuses our credentials (credentials), so requests wait"
            " in the queue unharmed and the API sees probes only.",
            "none",
            [(f"max by (cause) ({worker('hold')})", "{{cause}}")],
            thresholds=steps(GREEN, (1, RED)),
            mappings=words(_0=("no", GREEN), _1=("HELD", RED)),
            name=True,
        ),
        stat(
            "Backlog",
            "Requests ready in the request queue that no worker has taken yet. From RabbitMQ.",
            "short",
            [(BACKLOG, "ready")],
            thresholds=steps(GREEN, (1_000, YELLOW), (10_000, RED)),
        ),
        stat(
            "Oldest request",
            "About the age of the oldest request in the queue: time since the request last received"
            " for the first time was asked for. 0 while nothing is queued.",
            "s",
            [(OLDEST, "age")],
            thresholds=steps(GREEN, (60, YELLOW), (300, RED)),
        ),
        stat(
            "Requests ended",
            "Requests that reached an outcome, a second, all outcomes together.",
            "reqps",
            [(rate("outcomes_total"), "ended")],
        ),
        stat(
            "Failed share",
            "Share of ended requests that failed. Each has a dead letter that says why.",
            "percentunit",
            [(FAILED_SHARE, "failed")],
            thresholds=steps(GREEN, (0.05, YELLOW), (0.2, RED)),
        ),
        stat(
            "Dead letters waiting",
            "Letters in the dead-letter queue, for review by `rename-worker dead-letters`, those"
            " included that a review has in hand. From RabbitMQ.",
            "short",
            [(LETTERS, "letters")],
            thresholds=steps(GREEN, (1, YELLOW), (1_000, RED)),
        ),
        stat(
            "Deliveries near the limit",
            "Deliveries in the last hour of requests that were delivered so often that the broker"
            " is about to give up on them: they seem to kill the worker.",
            "short",
            [(f"sum(increase({worker('deliveries_near_limit_total')}[1h]))", "last hour")],
            thresholds=steps(GREEN, (1, RED)),
            decimals=0,
        ),
        stat(
            "Workers",
            "Workers running, by version. Two versions at once outside a rollout are a mistake.",
            "short",
            [(f"count by (version) ({worker('build_info')})", "{{version}}")],
            w=8,
            name=True,
        ),
        stat(
            "Calls in flight",
            "Calls in flight of those allowed (`consumer.concurrency`), all workers together.",
            "percentunit",
            [(f"sum({worker('in_flight')}) / sum({worker('concurrency')})", "used")],
            w=8,
            thresholds=steps(GREEN, (0.8, YELLOW), (0.95, RED)),
        ),
    ],
    "Outcomes": [
        lines(
            "Outcomes",
            "Requests that ended, by how. already_applied: the rename had taken effect before its"
            " answer was lost, and was confirmed.",
            "reqps",
            [(rate("outcomes_total", by="outcome"), "{{outcome}}")],
            stack=True,
            overrides=colours(renamed=GREEN, already_applied=BLUE, failed=RED),
        ),
        lines(
            "Failures by reason",
            "Failed requests by reason. user_not_found, username_taken and invalid_request come from"
            " upstream; forbidden from our rights; retries_exhausted from the API.",
            "reqps",
            [(rate_once_seen("outcomes_total", "reason", FAILED), "{{reason}}")],
            stack=True,
        ),
        lines(
            "Failed share",
            "Share of ended requests that failed.",
            "percentunit",
            [(FAILED_SHARE, "failed")],
            thresholds=steps(GREEN, (0.1, RED)),
            max=1,
        ),
        lines(
            "Age at outcome",
            "Time from when a request was asked for to its outcome: what upstream experiences."
            " Half of the requests were younger than p50.",
            "s",
            [(quantile(q, "request_age_seconds"), f"p{name}") for q, name in ((0.5, 50), (0.95, 95), (0.99, 99))],
        ),
        lines(
            "Duration in the worker, p95",
            "Time from a request's first receipt to its outcome, waits and deferrals included. A gap"
            " means that none ended so.",
            "s",
            [(quantile(0.95, "request_duration_seconds", by="outcome"), "{{outcome}}")],
            overrides=colours(renamed=GREEN, already_applied=BLUE, failed=RED),
        ),
        lines(
            "Requests taken",
            "Messages taken from the request queue: for the first time, and again after a"
            " redelivery.",
            "reqps",
            [
                (rate("requests_consumed_total", 'redelivered="false"'), "first delivery"),
                (rate("requests_consumed_total", 'redelivered="true"'), "redelivered"),
            ],
        ),
    ],
    "Calls to the API": [
        lines(
            "Calls by status",
            "Calls made, by what came of them: the status code, or timeout, connect, reset, garbled.",
            "reqps",
            [(rate_once_seen("api_calls_total", "status"), "{{status}}")],
            stack=True,
        ),
        lines(
            "Latency of renames",
            "Time a rename call takes, answered or not. A call is cut off after `api.timeout`.",
            "s",
            [
                (quantile(q, "api_call_duration_seconds", RENAME), f"p{name}")
                for q, name in ((0.5, 50), (0.95, 95), (0.99, 99))
            ],
        ),
        heatmap(
            "Spread of rename latency",
            "How many rename calls took how long.",
            "s",
            f"sum by (le) (increase({worker('api_call_duration_seconds_bucket', RENAME)}{RATE}))",
        ),
        lines(
            "Transient failures, share of calls",
            "Share of calls that failed in passing (408, 425, 429, 5xx, no answer, garbled). Ten in"
            " a row make a worker hold.",
            "percentunit",
            [
                (
                    f"{rate('api_calls_total', TRANSIENT, 'kind')} / ({rate('api_calls_total', by='kind')} > 0)",
                    "{{kind}}",
                )
            ],
            max=1,
        ),
        lines(
            "Latency by call, p95",
            "rename: the rename itself. confirm: a self-rename, to learn whether a name exists."
            " token: Get Token.",
            "s",
            [(quantile(0.95, "api_call_duration_seconds", by="kind"), "{{kind}}")],
        ),
        lines(
            "Get Token by status",
            "Calls for a token in the last 10 minutes, by what came of them. A token lasts a day, so"
            " there are few.",
            "short",
            [
                (
                    f"sum by (status) (increase({worker('api_calls_total', TOKEN)}[10m])) and on (status)"
                    f" (sum by (status) ({worker('api_calls_total', TOKEN)}) > 0)",
                    "{{status}}",
                )
            ],
            stack=True,
        ),
    ],
    "Retries and deferrals": [
        lines(
            "Deferrals by delay",
            "Requests moved to a retry queue, by its delay.",
            "reqps",
            [(rate("deferrals_total", by="delay"), "{{delay}}")],
            stack=True,
        ),
        lines(
            "Waiting in the retry queues",
            "Requests in the retry queues, by queue. They come back to the request queue by"
            " themselves. From RabbitMQ.",
            "short",
            [(depth("messages_ready", "retry[.].+"), "{{queue}}")],
            stack=True,
        ),
        lines(
            "Waiting in the worker",
            "waiting: for the next attempt in at most 2 s. blocked by order: for an earlier request"
            " that shares a name. Neither holds a call slot.",
            "short",
            [
                (f"sum({worker('waiting')})", "waiting"),
                (f"sum({worker('blocked_by_order')})", "blocked by order"),
            ],
        ),
        lines(
            "Confirmations",
            "Self-renames made to learn whether a name exists and whose it is, by what they showed.",
            "reqps",
            [(rate("confirmations_total", by="result"), "{{result}}")],
            w=12,
        ),
        lines(
            "Held",
            "1 while at least one worker holds, by cause.",
            "short",
            [(f"max by (cause) ({worker('hold')})", "{{cause}}")],
            w=12,
            max=1,
            decimals=0,
        ),
    ],
    "Events and dead letters": [
        lines(
            "Events",
            "Events that RabbitMQ has confirmed, by type.",
            "eps",
            [(rate("events_published_total", by="type"), "{{type}}")],
        ),
        lines(
            "Events in trouble",
            "not confirmed: published again until they are. no queue bound: confirmed, but nobody"
            " subscribes to the type.",
            "eps",
            [
                (rate("event_publish_failures_total", by="type"), "{{type}}, not confirmed"),
                (rate("events_unrouted_total", by="type"), "{{type}}, no queue bound"),
            ],
        ),
        lines(
            "Dead letters by reason",
            "Requests put into the dead-letter queue in the last 10 minutes, by reason.",
            "short",
            [
                (
                    f"sum by (reason) (increase({worker('dead_letters_total')}[10m])) and on (reason)"
                    f" (sum by (reason) ({worker('dead_letters_total')}) > 0)",
                    "{{reason}}",
                )
            ],
            stack=True,
        ),
    ],
    "Saturation": [
        lines(
            "Calls in flight, share of those allowed",
            "Near 100% for long: the worker is the bottleneck (or the API is slow); add workers or"
            " raise `consumer.concurrency`.",
            "percentunit",
            [(f"{worker('in_flight')} / {worker('concurrency')}", "{{instance}}")],
            thresholds=steps(GREEN, (0.95, RED)),
            max=1,
        ),
        lines(
            "CPU",
            "CPU time a second of each worker; 1 is one core.",
            "none",
            [(f"rate(process_cpu_seconds_total{{{SEL}}}[5m]) and on (job, instance) {worker('build_info')}", "{{instance}}")],
            decimals=2,
        ),
        lines(
            "Memory",
            "Resident memory of each worker.",
            "bytes",
            [(process("process_resident_memory_bytes"), "{{instance}}")],
        ),
        lines(
            "Log lines dropped",
            "Log lines that were not written in the last 10 minutes, since whoever reads the worker's standard"
            " error is too slow or has stopped. The work does not wait for it.",
            "short",
            [(f"sum by (instance) (increase({worker('log_lines_dropped_total')}[10m]))", "{{instance}}")],
            w=24,
            decimals=0,
        ),
    ],
    "The broker": [
        lines(
            "Messages ready",
            "Messages ready in the worker's queues. From RabbitMQ's Prometheus plugin"
            " (/metrics/detailed or /metrics/per-object).",
            "short",
            [(depth("messages_ready", "(requests|dead-letters|retry[.].+)"), "{{queue}}")],
        ),
        lines(
            "Messages unacknowledged",
            "Messages delivered and not yet settled, by queue. Those of the request queue are what"
            " the workers have in hand.",
            "short",
            [(depth("messages_unacked", "(requests|dead-letters|retry[.].+)"), "{{queue}}")],
        ),
        lines(
            "Consumers and connections",
            "Consumers of the request queue, as RabbitMQ counts them, and workers that say they are"
            " connected. A held worker is connected and does not consume.",
            "short",
            [
                (depth("consumers", "requests", by=""), "consumers"),
                (f"sum({worker('broker_connected')})", "workers connected"),
            ],
            decimals=0,
        ),
        lines(
            "Reconnects",
            "Connections to the broker made after the first, in the last 10 minutes, by worker.",
            "short",
            [(f"sum by (instance) (increase({worker('broker_reconnects_total')}[10m]))", "{{instance}}")],
            w=24,
            decimals=0,
        ),
    ],
}


def variables():
    def query(name, label, expr):
        return {
            "type": "query",
            "name": name,
            "label": label,
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "query": {"query": expr, "refId": name},
            "definition": expr,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            # Also where the label is missing, as `namespace` is outside Kubernetes.
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            "options": [],
        }

    return [
        {
            "type": "datasource",
            "name": "datasource",
            "label": "Data source",
            "query": "prometheus",
            "current": {},
            "options": [],
            "refresh": 1,
        },
        query("namespace", "Namespace", "label_values(rename_worker_build_info, namespace)"),
        query(
            "instance", "Instance", 'label_values(rename_worker_build_info{namespace=~"$namespace"}, instance)'
        ),
        query("vhost", "Virtual host", 'label_values({__name__=~"rabbitmq(_detailed)?_queue_messages_ready"}, vhost)'),
        {
            "type": "textbox",
            "name": "prefix",
            "label": "Queue prefix",
            "description": "amqp.prefix",
            "query": "rename",
            "current": {"selected": True, "text": "rename", "value": "rename"},
            "options": [{"selected": True, "text": "rename", "value": "rename"}],
        },
    ]


def laid_out():
    """Rows and panels with ids and places, 24 columns wide."""
    placed, next_id, y = [], 1, 0
    for title, panels in ROWS.items():
        placed.append(
            {
                "type": "row",
                "id": next_id,
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
            }
        )
        next_id, y, x, tallest = next_id + 1, y + 1, 0, 0
        for each in panels:
            place = each["gridPos"]
            if x + place["w"] > 24:
                x, y, tallest = 0, y + tallest, 0
            place.update(x=x, y=y)
            x, tallest = x + place["w"], max(tallest, place["h"])
            placed.append({"id": next_id, **each})
            next_id += 1
        y += tallest
    return placed


def dashboard():
    return {
        "uid": "rename-worker",
        "title": "rename-worker",
        "description": "Renames taken from RabbitMQ and performed on Dintero's API: is it healthy, what"
        " came of them, and where they wait.",
        "tags": ["rename-worker", "rabbitmq", "dintero"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "",
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "annotations": {
            "list": [
                {
                    "name": "Started",
                    "datasource": {"type": "prometheus", "uid": "${datasource}"},
                    "enable": True,
                    "hide": False,
                    "iconColor": "blue",
                    "expr": f"changes(process_start_time_seconds{{{SEL}}}[1m]) > 0 and on (job, instance) {worker('build_info')}",
                    "titleFormat": "{{instance}} restarted",
                    "step": "60s",
                }
            ]
        },
        "links": [
            {
                "type": "link",
                "title": "Runbook",
                "icon": "doc",
                "url": "https://github.com/rename-worker/rename-worker/blob/main/docs/runbook.md",
                "targetBlank": True,
                "asDropdown": False,
                "includeVars": False,
                "keepTime": False,
                "tags": [],
                "tooltip": "What it means, what to look at, what to do",
            }
        ],
        "templating": {"list": variables()},
        "panels": laid_out(),
    }


json.dump(dashboard(), sys.stdout, indent=2, ensure_ascii=False)
print()
