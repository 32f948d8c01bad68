#!/usr/bin/env python3
"""Prints the Grafana dashboard; `make dashboard` keeps its output in helm/rename-worker/dashboards/.

A panel is one call below: title, what it tells, unit, queries with their legends. The rest (ids,
places on the grid, colours) follows. Needs nothing but Python's own library.
"""

import json
import sys

# What to look at. One installation at a time, so that no panel adds one's numbers to another's: the
# workers' series by namespace and job (and all instances, or some), the broker's by the namespace and
# job that Prometheus gives it, virtual host and queue. An empty value selects series without the label.
INSTALLATION = 'namespace="$namespace",job="$job"'
SEL = INSTALLATION + ',instance=~"$instance"'
BROKER = 'namespace="$broker_namespace",job="$broker"'
QUEUE = BROKER + ',vhost="$vhost",queue=~"$prefix[.]%s"'
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


def seen(name, by, labels=""):
    """Which label values have occurred. Over an hour, so that those of a worker that has restarted or
    is gone, and has counted them before, are seen as well."""
    return f"sum by ({by}) (max_over_time({worker(name, labels)}[1h])) > 0"


def rate_once_seen(name, by, labels=""):
    """As `rate`, without the label values that have never occurred: there are many, all at zero."""
    return f"{rate(name, labels, by)} and on ({by}) ({seen(name, by, labels)})"


def increase_once_seen(name, by, labels=""):
    """As `rate_once_seen`, how often within 10 minutes."""
    return f"sum by ({by}) (increase({worker(name, labels)}[10m])) and on ({by}) ({seen(name, by, labels)})"


def quantile(q, name, labels="", by=""):
    more = f", {by}" if by else ""
    return f"histogram_quantile({q}, sum by (le{more}) (rate({worker(name + '_bucket', labels)}{RATE})))"


def depth(what, queue, by="queue"):
    """Messages in a queue. RabbitMQ names it differently at /metrics/detailed and
    /metrics/per-object, and more than one node may report the same queue."""
    name = f"rabbitmq(_detailed)?_queue_{what}"
    found = f'max by (queue) ({{__name__=~"{name}",{QUEUE % queue}}})'
    return f"sum by ({by}) ({found})" if by else f"sum({found})"


def process(name):
    """A process metric of the workers only: every exporter has these names."""
    return f"{name}{{{SEL}}} and on (namespace, job, instance) {worker('build_info')}"


BACKLOG = depth("messages_ready", "(requests|due)", by="")
LETTERS = " + ".join(depth(what, "dead-letters", by="") for what in ("messages_ready", "messages_unacked"))
# As the recording rule of this name in rules/rename-worker.yaml, which says why.
OLDEST = (
    f"min_over_time(clamp_min(time() - max({worker('queue_head_timestamp_seconds')} > 0), 0)[5m:30s])"
    f" and max(changes({worker('queue_head_timestamp_seconds')}[5m])) > 0"
)
# No data while no request finishes: a share of nothing is not 0 %.
FAILED_SHARE = f"{rate('outcomes_total', FAILED)} / ({rate('outcomes_total')} > 0)"
# Every installation that was seen within the last day, with the number of its workers now.
INSTALLATIONS = (
    "count by (namespace, job) (rename_worker_build_info)"
    " or 0 * max by (namespace, job) (present_over_time(rename_worker_build_info[1d]))"
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
    "All installations": [
        stat(
            "Installations",
            "Workers running in each installation that was seen within the last day; the rest of this"
            " dashboard shows the one that is selected above. Gone: no worker runs, or none is scraped.",
            "short",
            [(INSTALLATIONS, "{{namespace}} {{job}}")],
            w=24,
            thresholds=steps(RED, (1, GREEN)),
            mappings=words(_0=("gone", RED)),
            name=True,
        ),
    ],
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
            "Accounts held",
            "Accounts whose requests wait while others go on: the API fails their calls (api) or refuses"
            " their credentials (credentials). `rename-worker status` lists them.",
            "short",
            [(f"max by (cause) ({worker('accounts_held')})", "{{cause}}")],
            thresholds=steps(GREEN, (1, YELLOW)),
            decimals=0,
            name=True,
        ),
        stat(
            "Backlog",
            "Requests ready in the request queue, or due again after a wait, that no worker has taken yet."
            " From RabbitMQ.",
            "short",
            [(BACKLOG, "ready")],
            noValue="not scraped",
            thresholds=steps(GREEN, (1_000, YELLOW), (10_000, RED)),
        ),
        stat(
            "Oldest request",
            "Every new request taken in the last 5 minutes had been asked for at least so long ago: with a"
            " backlog, about the age of the oldest request in the queue.",
            "s",
            [(OLDEST, "age")],
            noValue="none taken",
            thresholds=steps(GREEN, (60, YELLOW), (300, RED)),
        ),
        stat(
            "Requests finished",
            "Requests that reached an outcome, per second, all outcomes together.",
            "reqps",
            [(rate("outcomes_total"), "finished")],
        ),
        stat(
            "Failed share",
            "Share of finished requests that failed. The event and the dead letter of each say why.",
            "percentunit",
            [(FAILED_SHARE, "failed")],
            noValue="no outcomes",
            thresholds=steps(GREEN, (0.05, YELLOW), (0.2, RED)),
        ),
        stat(
            "Dead letters waiting",
            "Letters in the dead-letter queue, for review by `rename-worker dead-letters`, those"
            " included that a review has in hand. From RabbitMQ.",
            "short",
            [(LETTERS, "letters")],
            noValue="not scraped",
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
            "Calls in flight of those allowed (`consumer.concurrency`), in the busiest worker: one that"
            " stands by has no calls and would halve the share of all.",
            "percentunit",
            [(f"max({worker('in_flight')} / {worker('concurrency')})", "busiest worker")],
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
            "Share of finished requests that failed. A gap means that none finished.",
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
            [(increase_once_seen("api_calls_total", "status", TOKEN), "{{status}}")],
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
            "Requests that wait for their next attempt, by queue. They become due by themselves. From"
            " RabbitMQ.",
            "short",
            [(depth("messages_ready", "(wait|retry)[.].+"), "{{queue}}")],
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
        ),
        lines(
            "Held",
            "1 while at least one worker holds, by cause.",
            "short",
            [(f"max by (cause) ({worker('hold')})", "{{cause}}")],
            max=1,
            decimals=0,
        ),
        lines(
            "Held accounts",
            "Accounts that are held while others go on, by cause, in the worker that holds most of them.",
            "short",
            [(f"max by (cause) ({worker('accounts_held')})", "{{cause}}")],
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
            [(increase_once_seen("dead_letters_total", "reason"), "{{reason}}")],
            stack=True,
        ),
        lines(
            "Undeliverable by cause",
            "Requests that RabbitMQ moved away itself, or that the worker rejected unread because they are"
            " too large, in the last 10 minutes. unreadable: nobody can read it over AMQP 0-9-1, so a"
            " person has to; the others were reported and have dead letters.",
            "short",
            [(f"sum by (cause) (increase({worker('undeliverable_total')}[10m]))", "{{cause}}")],
            w=24,
            stack=True,
            overrides=colours(unreadable=RED),
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
            [(f"rate(process_cpu_seconds_total{{{SEL}}}[5m]) and on (namespace, job, instance) {worker('build_info')}", "{{instance}}")],
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
            "Log lines that were dropped in the last 10 minutes because whatever reads the worker's standard"
            " error was too slow. Renames are not affected.",
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
            [(depth("messages_ready", "(requests|due|dead-letters|undeliverable|(wait|retry)[.].+)"), "{{queue}}")],
        ),
        lines(
            "Messages unacknowledged",
            "Messages delivered and not yet settled, by queue. Those of the request queue are what"
            " the workers have in hand.",
            "short",
            [(depth("messages_unacked", "(requests|due|dead-letters|undeliverable|(wait|retry)[.].+)"), "{{queue}}")],
        ),
        lines(
            "Consumers and connections",
            "Consumers of the request queue, as RabbitMQ counts them, and workers that say they are"
            " connected. A worker that holds or stands by is connected and does not consume.",
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
    def query(name, label, expr, description="", several=False):
        """A variable whose values come from a label. Without `several` exactly one value is selected,
        the first at the beginning, and the empty one where no series has the label (as `namespace`
        outside Kubernetes)."""
        everything = {"allValue": ".*", "current": {"selected": True, "text": ["All"], "value": ["$__all"]}}
        return {
            "type": "query",
            "name": name,
            "label": label,
            "description": description,
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "query": {"query": expr, "refId": name},
            "definition": expr,
            "refresh": 2,
            "sort": 1,
            "multi": several,
            "includeAll": several,
            **(everything if several else {"current": {}}),
            "options": [],
        }

    def queues(labels=""):
        return f'{{__name__=~"rabbitmq(_detailed)?_queue_messages_ready",queue=~"$prefix[.].*"{labels}}}'

    in_namespace = ',namespace="$broker_namespace"'
    where = "of RabbitMQ's scrape: choose the broker of the selected installation"
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
        query("job", "Job", 'label_values(rename_worker_build_info{namespace="$namespace"}, job)'),
        query(
            "instance",
            "Instance",
            f"label_values(rename_worker_build_info{{{INSTALLATION}}}, instance)",
            several=True,
        ),
        {
            "type": "textbox",
            "name": "prefix",
            "label": "Queue prefix",
            "description": "amqp.prefix",
            "query": "rename",
            "current": {"selected": True, "text": "rename", "value": "rename"},
            "options": [{"selected": True, "text": "rename", "value": "rename"}],
        },
        query("broker_namespace", "Broker's namespace", f"label_values({queues()}, namespace)", f"Namespace {where}"),
        query("broker", "Broker's job", f"label_values({queues(in_namespace)}, job)", f"Job {where}"),
        query("vhost", "Virtual host", f"label_values({queues(',' + BROKER)}, vhost)", "Of amqp.url"),
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
                    "expr": f"changes(process_start_time_seconds{{{SEL}}}[1m]) > 0 and on (namespace, job, instance) {worker('build_info')}",
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
