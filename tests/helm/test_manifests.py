"""Every manifest of every case: valid for Kubernetes, restricted, and wired to the others."""

import functools
import json
import re
import unittest

from support import CASES, CHART, HERE, VERSIONS, files, helm, kinds, only, overlaid, pods, rendered
from support import settings, template, values, worker

import jsonschema
import kubernetes_validate

# Not Kubernetes' own: their shapes are in schemas/.
CUSTOM = {path.stem: json.loads(path.read_text()) for path in (HERE / "schemas").glob("*.json")}


def each_case(check):
    """Runs a test for every case and Kubernetes version, each told by itself when it fails."""

    @functools.wraps(check)
    def test(self):
        for case in CASES:
            for version in VERSIONS:
                with self.subTest(case=case, kubernetes=version):
                    self.case, self.version = case, version
                    check(self, rendered(case, version))

    return test


class EveryCase(unittest.TestCase):
    def test_helm_lints_it(self):
        for case, path in CASES.items():
            with self.subTest(case=case):
                helm("lint", "--strict", str(CHART), "--values", str(path))

    @each_case
    def test_each_manifest_fits_the_schemas_of_the_oldest_and_the_newest_kubernetes(self, manifests):
        for manifest in manifests:
            custom = CUSTOM.get(manifest["kind"].lower())
            if custom:
                jsonschema.validate(manifest, custom)
            else:
                validated = kubernetes_validate.validate(manifest, self.version, strict=True)
                self.assertEqual(validated, self.version)

    @each_case
    def test_each_pod_keeps_to_the_restricted_profile(self, manifests):
        self.assertEqual(len(pods(manifests)), 2, "the worker and helm test")
        for name, pod in pods(manifests):
            with self.subTest(pod=name):
                self.assert_restricted(pod["spec"])

    def assert_restricted(self, spec):
        """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and more."""
        for host in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
            self.assertNotIn(host, spec)
        allowed = {"configMap", "downwardAPI", "emptyDir", "projected", "secret"}
        for volume in spec["volumes"]:
            self.assertTrue(set(volume) - {"name"} <= allowed, volume)
        context = spec["securityContext"]
        self.assertIs(context["runAsNonRoot"], True)
        self.assertEqual(context["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertNotEqual(context.get("runAsUser"), 0)
        self.assertNotIn("sysctls", context)
        self.assertNotIn("initContainers", spec)
        for container in spec["containers"]:
            own = container["securityContext"]
            self.assertIs(own["allowPrivilegeEscalation"], False)
            self.assertIs(own["privileged"], False)
            self.assertIs(own["runAsNonRoot"], True)
            self.assertIs(own["readOnlyRootFilesystem"], True)
            self.assertEqual(own["capabilities"], {"drop": ["ALL"]})
            self.assertEqual(own["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertNotIn("runAsUser", own)
            for port in container.get("ports", []):
                self.assertNotIn("hostPort", port)
            for mount in container.get("volumeMounts", []):
                self.assertNotIn("subPath", mount, "its files would never be rotated")
                self.assertIs(mount["readOnly"], True)
        self.assertIs(spec["automountServiceAccountToken"], False)
        self.assertIs(spec["enableServiceLinks"], False)

    @each_case
    def test_each_file_the_settings_name_is_mounted_and_each_mounted_one_is_named(self, manifests):
        named = {
            value
            for section in flat(settings(manifests))
            for key, value in section.items()
            if key.endswith("_file")
        }
        for _, pod in pods(manifests):
            self.assertEqual(named, set(files(pod)))

    @each_case
    def test_each_object_of_the_chart_that_is_mounted_holds_the_key(self, manifests):
        own = {m["metadata"]["name"]: m for m in manifests if m["kind"] == "Secret"}
        for _, pod in pods(manifests):
            for kind, name, key in files(pod).values():
                if kind == "secret" and name in own:
                    self.assertIn(key, own[name]["stringData"])

    @each_case
    def test_nothing_secret_is_outside_the_secret(self, manifests):
        rest = json.dumps([m for m in manifests if m["kind"] != "Secret"])
        for secret in secrets(values(self.case)):
            self.assertFalse(secret in rest, "a secret is outside the Secret")

    @each_case
    def test_everything_that_selects_pods_selects_the_workers_and_only_them(self, manifests):
        labels = worker(manifests)["metadata"]["labels"]
        tester = only(manifests, "Pod")
        test_labels = tester["metadata"]["labels"]
        for manifest in manifests:
            for selector in selectors(manifest):
                with self.subTest(kind=manifest["kind"]):
                    # The test pod has a policy of its own, and nothing else selects it.
                    if (manifest["kind"], manifest["metadata"]["name"]) == ("NetworkPolicy", tester["metadata"]["name"]):
                        self.assertLessEqual(selector.items(), test_labels.items())
                        self.assertFalse(selector.items() <= labels.items())
                    else:
                        self.assertLessEqual(selector.items(), labels.items())
                        self.assertFalse(selector.items() <= test_labels.items())

    @each_case
    def test_the_network_policies_bound_both_ways_of_every_pod(self, manifests):
        policies = [m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"]
        if not policies:
            self.assertIs(values(self.case)["networkPolicy"]["enabled"], False)
            return
        for _, pod in pods(manifests):
            labels = pod["metadata"]["labels"]
            (policy,) = [p for p in policies if p["podSelector"]["matchLabels"].items() <= labels.items()]
            self.assertEqual(policy["policyTypes"], ["Ingress", "Egress"])
            for rule in policy["ingress"]:
                self.assertTrue(rule["from"], "everybody may come in")
                for peer in rule["from"]:
                    self.assertNotEqual(peer, {"namespaceSelector": {}}, "everybody in the cluster may come in")
            for rule in policy["egress"]:
                self.assertTrue(rule["ports"], "every port may be reached")
            self.assertTrue(policy["egress"][0]["to"], "anybody may be asked for names")

    @each_case
    def test_helm_test_reaches_dns_and_the_workers_under_the_policies(self, manifests):
        policies = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"}
        if not policies:
            return
        tester, workers = only(manifests, "Pod"), worker(manifests)["metadata"]["labels"]
        out = policies[tester["metadata"]["name"]]["egress"]
        self.assertEqual(out[0], policy(manifests)["egress"][0], "DNS, as the workers have it")
        self.assertEqual(out[1]["ports"], [{"port": 9090, "protocol": "TCP"}])
        self.assertLessEqual(out[1]["to"][0]["podSelector"]["matchLabels"].items(), workers.items())
        self.assertEqual(len(out), 2)
        (into,) = policies[only(manifests, "Deployment")["metadata"]["name"]]["ingress"]
        allowed = [peer["podSelector"]["matchLabels"] for peer in into["from"] if set(peer) == {"podSelector"}]
        self.assertTrue(any(labels.items() <= tester["metadata"]["labels"].items() for labels in allowed))

    @each_case
    def test_probes_scrapes_and_service_reach_the_admin_port(self, manifests):
        (container,) = worker(manifests)["spec"]["containers"]
        self.assertEqual(container["ports"], [{"name": "admin", "containerPort": 9090, "protocol": "TCP"}])
        self.assertRegex(settings(manifests)["admin"]["listen"], r"^(0\.0\.0\.0|\[::\]):9090$")
        probes = {p: container[p]["httpGet"] for p in ("livenessProbe", "readinessProbe")}
        self.assertEqual(probes["livenessProbe"], {"path": "/livez", "port": "admin"})
        self.assertEqual(probes["readinessProbe"], {"path": "/readyz", "port": "admin"})
        self.assertEqual(only(manifests, "Service")["spec"]["ports"][0]["targetPort"], "admin")

    @each_case
    def test_kubernetes_waits_longer_than_the_worker_drains(self, manifests):
        units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
        drain = settings(manifests)["consumer"]["drain_timeout"]
        seconds = sum(int(n) * units[u] for n, u in re.findall(r"(\d+)(ms|s|m|h)", drain))
        self.assertGreater(worker(manifests)["spec"]["terminationGracePeriodSeconds"], seconds)

    @each_case
    def test_names_are_unique_and_fit(self, manifests):
        names = [(m["kind"], m["metadata"]["name"]) for m in manifests]
        self.assertEqual(len(names), len(set(names)))
        for kind, name in names:
            self.assertLessEqual(len(name), 63, kind)
            self.assertRegex(name, r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")

    def test_notes_tell_where_to_look_and_never_a_secret(self):
        for case, path in CASES.items():
            with self.subTest(case=case):
                done = helm("install", "renames", str(CHART), "--dry-run=client", "--namespace", "crm", "--values", str(path))
                notes = done.split("\nNOTES:\n")[1]
                self.assertIn("helm test renames --namespace crm", notes)
                self.assertIn("requests (failed requests:", notes)
                for secret in secrets(values(case)):
                    self.assertFalse(secret in notes, "a secret is in the notes")


class WhatIsThere(unittest.TestCase):
    """Which objects a case has, and what is in them."""

    ALWAYS = {"ConfigMap", "Service", "Deployment", "Pod"}

    def test_the_least_makes_no_more_than_it_needs(self):
        self.assertEqual(set(kinds(rendered("bare"))), self.ALWAYS)
        expected = self.ALWAYS | {"Secret", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget"}
        self.assertEqual(set(kinds(rendered("minimal"))), expected)

    def test_existing_secrets_make_no_secret(self):
        self.assertNotIn("Secret", kinds(rendered("existing-secrets")))
        mounted = files(worker(rendered("existing-secrets")))
        self.assertEqual(
            mounted,
            {
                "/etc/rename-worker/secrets/amqp-url": ("secret", "rabbitmq", "connection_string"),
                "/etc/rename-worker/secrets/api-token": ("secret", "dintero", "token"),
            },
        )

    def test_a_client_certificate_and_its_key_come_from_one_tls_secret(self):
        mounted = files(worker(rendered("client-in-existing-secret")))
        self.assertEqual(
            mounted,
            {
                "/etc/rename-worker/secrets/amqp-url": ("secret", "rabbitmq", "url"),
                "/etc/rename-worker/secrets/api-client-secret": ("secret", "dintero", "secret"),
                "/etc/rename-worker/secrets/amqp-ca.crt": ("secret", "rabbitmq-ca", "ca.crt"),
                "/etc/rename-worker/secrets/amqp-client.crt": ("secret", "worker-tls", "tls.crt"),
                "/etc/rename-worker/secrets/amqp-client.key": ("secret", "worker-tls", "tls.key"),
            },
        )
        self.assertEqual(settings(rendered("client-in-existing-secret"))["api"]["client_id"], "a-client")

    def test_accounts_have_sections_of_their_own(self):
        accounts = settings(rendered("everything"))["api"]["accounts"]
        self.assertEqual(
            accounts,
            {
                "T12345678": {"token_file": "/etc/rename-worker/secrets/api-accounts-T12345678-token"},
                "P87654321": {
                    "client_id": "other",
                    "client_secret_file": "/etc/rename-worker/secrets/api-accounts-P87654321-client-secret",
                },
            },
        )

    def test_strict_order_means_one_worker_at_a_time(self):
        deployment = only(rendered("minimal"), "Deployment")["spec"]
        self.assertEqual((deployment["replicas"], deployment["strategy"]), (1, {"type": "Recreate"}))
        deployment = only(rendered("everything"), "Deployment")["spec"]
        self.assertEqual((deployment["replicas"], deployment["strategy"]["type"]), (3, "RollingUpdate"))

    def test_a_scaler_owns_the_number_of_workers(self):
        for case in ("keda", "keda-tls-from-zero", "hpa"):
            self.assertNotIn("replicas", only(rendered(case), "Deployment")["spec"])

    def test_keda_asks_the_broker_with_the_worker_s_own_credentials(self):
        scaled = only(rendered("keda"), "ScaledObject")["spec"]
        self.assertEqual(scaled["scaleTargetRef"]["name"], only(rendered("keda"), "Deployment")["metadata"]["name"])
        self.assertEqual(scaled["triggers"][0]["metadata"]["value"], "2000000")
        self.assertEqual(scaled["triggers"][0]["metadata"]["queueName"], "rename.requests")
        manifests = rendered("keda-tls-from-zero")
        authentication = only(manifests, "TriggerAuthentication")["spec"]
        own = only(manifests, "Secret")
        parameters = {r["parameter"]: (r["name"], r["key"]) for r in authentication["secretTargetRef"]}
        self.assertEqual(
            parameters,
            {
                "host": ("rabbitmq", "url"),
                "cert": ("worker-tls", "tls.crt"),
                "key": ("worker-tls", "tls.key"),
                "tls": (own["metadata"]["name"], "keda-tls"),
            },
        )
        self.assertEqual(own["stringData"]["keda-tls"], "enable")
        (ca,) = authentication["configMapTargetRef"]
        self.assertEqual((ca["parameter"], ca["name"], ca["key"]), ("ca", "rabbitmq-ca", "ca.crt"))

    def test_a_horizontal_pod_autoscaler_goes_by_the_queue(self):
        spec = only(rendered("hpa"), "HorizontalPodAutoscaler")["spec"]
        (metric,) = spec["metrics"]
        self.assertEqual(metric["external"]["metric"]["name"], "queue_ready")
        self.assertEqual(metric["external"]["target"], {"type": "AverageValue", "averageValue": "1000"})

    def test_the_network_policy_opens_what_the_settings_say(self):
        def ports(case):
            return [port["port"] for rule in policy(rendered(case))["egress"] for port in rule["ports"]]

        self.assertEqual(ports("minimal"), [53, 53, 5671, 443])
        self.assertEqual(ports("existing-secrets"), [53, 53, 5671, 5672, 443])
        self.assertEqual(ports("everything"), [53, 53, 5671, 443, 4318, 3128])
        self.assertEqual(ports("sandbox"), [53, 53, 5672, 8080])
        self.assertEqual(ports("openshift")[:2], [5353, 5353])

    def test_only_where_metrics_are_scraped_may_come_in_and_that_can_be_chosen(self):
        def peers(**policy_values):
            (rule,) = policy(template({**values("minimal"), "networkPolicy": policy_values}))["ingress"]
            self.assertEqual(rule["ports"], [{"port": "admin", "protocol": "TCP"}])
            # The last one is helm test.
            return rule["from"][:-1]

        monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        self.assertEqual(peers(), [monitoring])
        self.assertEqual(peers(metricsFrom=[]), [])
        chosen = {"podSelector": {"matchLabels": {"app": "agent"}}}
        self.assertEqual(peers(metricsFrom=[chosen]), [chosen])

    def test_where_the_workers_may_go_follows_from_the_urls(self):
        def to(base_url="https://api.dintero.com/v1", amqp="amqps://u:p@rabbitmq.example/%2f", otlp=None, **policy_values):
            given = overlaid(
                values("minimal"),
                {
                    "credentials": {"amqp": {"url": amqp}},
                    "config": {"api": {"base_url": base_url, "allow_insecure": True}, "otlp": {"endpoint": otlp}},
                    "networkPolicy": policy_values,
                },
            )
            return [rule.get("to") for rule in policy(template(given))["egress"][1:]]

        def namespace(name):
            return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}]

        broker, api = to()
        self.assertIsNone(broker, "a public name says nothing of where it is")
        self.assertEqual([peer["ipBlock"]["cidr"] for peer in api], ["0.0.0.0/0", "::/0"])
        for private in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"):
            self.assertIn(private, api[0]["ipBlock"]["except"])
        for host, expected in {
            "rabbitmq.brokers.svc": namespace("brokers"),
            "rabbitmq.brokers.svc.cluster.local:5671": namespace("brokers"),
            "rabbitmq": [{"podSelector": {}}],
            "10.1.2.3:5671": [{"ipBlock": {"cidr": "10.1.2.3/32"}}],
            "[fd00::1]": [{"ipBlock": {"cidr": "fd00::1/128"}}],
            "svc.brokers.example": None,
            "rabbitmq.brokers": None,
        }.items():
            with self.subTest(host=host):
                port = host if re.search(r":\d+$", host) and "[" not in host else f"{host}:5671"
                self.assertEqual(to(amqp=f"amqps://u:p%40x@{port}/v")[0], expected)
                self.assertEqual(to(base_url=f"https://{host}/v1")[1], expected)
                self.assertEqual(to(otlp=f"http://{host}/x")[2], expected)
        chosen = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
        manifests = template(
            overlaid(
                values("everything"),
                {"networkPolicy": {"amqp": {"to": chosen}, "api": {"to": chosen}, "otlp": {"to": chosen}}},
            )
        )
        self.assertEqual([rule["to"] for rule in policy(manifests)["egress"][1:4]], [chosen] * 3)

    def test_newer_fields_are_left_out_for_an_older_kubernetes(self):
        old, new = (only(rendered("minimal", v), "PodDisruptionBudget")["spec"] for v in VERSIONS)
        self.assertNotIn("unhealthyPodEvictionPolicy", old)
        self.assertEqual(new["unhealthyPodEvictionPolicy"], "AlwaysAllow")

    def test_files_are_readable_without_a_group(self):
        def mode(case):
            return worker(rendered(case))["spec"]["volumes"][1]["projected"]["defaultMode"]

        self.assertEqual((oct(mode("minimal")), oct(mode("openshift"))), ("0o440", "0o444"))

    def test_dashboards_and_rules_are_carried_as_they_are(self):
        manifests = rendered("sandbox")
        sources = sorted((CHART / "dashboards").glob("*.json"))
        carried = [m["data"] for m in manifests if m["kind"] == "ConfigMap" and "rename-worker.toml" not in m["data"]]
        self.assertEqual([list(data) for data in carried], [[source.name] for source in sources])
        for data, source in zip(carried, sources):
            self.assertEqual(json.loads(data[source.name]), json.loads(source.read_text()))
        rules = sum(len(path.read_text().split("- alert:")) - 1 for path in (CHART / "rules").glob("*.yaml"))
        self.assertEqual(len(alerts(manifests)), rules)

    def test_rules_and_dashboards_follow_the_prefix(self):
        rules = json.dumps([m["spec"] for m in rendered("everything") if m["kind"] == "PrometheusRule"])
        self.assertNotRegex(rules, r'queue=~?\\"rename')
        # A dot is a dot, in a regular expression too.
        self.assertIn('queue=~\\"crm[.]rename[.](', rules)
        self.assertIn('queue=\\"crm.rename.requests\\"', rules)
        for manifest in rendered("everything"):
            for name, content in manifest.get("data", {}).items():
                if name.endswith(".json"):
                    variables = {v["name"]: v for v in json.loads(content)["templating"]["list"]}
                    self.assertEqual(variables["prefix"]["query"], "crm.rename")


    def test_either_monitor_gives_each_release_a_job_of_its_own(self):
        for kind, endpoints in (("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")):
            for release in ("renames", "others"):
                given = overlaid(values("minimal"), {"metrics": {"monitor": {"kind": kind}}})
                (endpoint,) = only(template(given, release=release), kind)["spec"][endpoints]
                job = {"action": "replace", "targetLabel": "job", "replacement": f"{release}-rename-worker"}
                self.assertEqual(endpoint["relabelings"], [job])

    def test_a_release_knows_its_own_absence_by_the_labels_its_monitor_gives(self):
        def own(**metrics):
            given = {**values("minimal"), "metrics": {"prometheusRule": {"enabled": True}, **metrics}}
            found = [m for m in template(given) if m["metadata"]["name"].endswith("-own")]
            return {rule["alert"]: rule["expr"] for m in found for rule in m["spec"]["groups"][0]["rules"]}

        absent = 'absent(rename_worker_build_info{job="renames-rename-worker",namespace="crm"})'
        self.assertEqual(own(monitor={"kind": "PodMonitor"}), {"RenameWorkerAbsent": absent})
        self.assertEqual(own(), {}, "who else scrapes chooses labels that the chart does not know")
        rule = {"enabled": True, "selector": {"job": "mine"}, "queueLabels": {"namespace": "brokers"}}
        self.assertEqual(
            own(prometheusRule=rule),
            {
                "RenameWorkerAbsent": 'absent(rename_worker_build_info{job="mine"})',
                "RenameWorkerQueuesUnseen": 'absent({__name__=~"rabbitmq(_detailed)?_queue_messages_ready",'
                'namespace="brokers",queue="rename.requests"})',
            },
        )

    def test_its_own_alerts_look_like_the_general_ones(self):
        """The same labels, so that nobody is notified twice."""
        by_name = {}
        for rule in alerts(rendered("everything")):
            by_name.setdefault(rule["alert"], []).append(rule)
        twice = {name: rules for name, rules in by_name.items() if len(rules) > 1}
        self.assertEqual(set(twice), {"RenameWorkerAbsent", "RenameWorkerQueuesUnseen"})
        for general, own in twice.values():
            for part in ("for", "labels"):
                self.assertEqual(general[part], own[part])
            for part in ("summary", "runbook_url"):
                self.assertEqual(general["annotations"][part], own["annotations"][part])

    def test_where_no_worker_is_intended_that_there_is_none_is_no_alert(self):
        metrics = {"monitor": {"kind": "PodMonitor"}, "prometheusRule": {"enabled": True}}
        for given in ({**values("keda-tls-from-zero"), "metrics": metrics}, {**values("minimal"), "replicas": 0, "metrics": metrics}):
            names = {rule["alert"] for rule in alerts(template(given))}
            self.assertNotIn("RenameWorkerAbsent", names)
            self.assertIn("RenameWorkerRequestsUnconsumed", names)


class Nasty(unittest.TestCase):
    """Strings that YAML would read as something else arrive as the strings they are."""

    # As YAML 1.1 or 1.2 reads them: a boolean, nothing, a float, whole numbers, a date, a sexagesimal one.
    NAMES = ["true", "yes", "null", "1e3", "0123", "0x1f", "2001-01-01", "123", "0b1", "0o17"]

    def assert_strings(self, manifests):
        """Whatever has to be a string by Kubernetes' schemas is one."""
        for manifest in manifests:
            custom = CUSTOM.get(manifest["kind"].lower())
            if custom:
                jsonschema.validate(manifest, custom)
            else:
                kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)

    def test_names_of_whatever_the_user_names(self):
        for name in self.NAMES:
            with self.subTest(name=name):
                given = overlaid(
                    values("everything"),
                    {
                        "image": {"repository": "1", "tag": name, "pullSecrets": [{"name": name}]},
                        "credentials": {
                            "amqp": {"url": "", "existingSecret": name, "existingSecretKey": name},
                            "api": {"clientSecret": "", "existingSecret": name, "existingSecretKey": name},
                        },
                        "tls": {"amqp": {"ca": {"pem": "", "existingConfigMap": name, "key": name}}},
                        "extraEnv": [{"name": "A", "value": name}],
                        "serviceAccount": {"name": name, "annotations": {"a": name}},
                        "commonLabels": {"a": name},
                        "podAnnotations": {"a": name},
                        "nodeSelector": {"a": name},
                        "tolerations": [{"key": name, "operator": "Equal", "value": name}],
                        "priorityClassName": name,
                        "nameOverride": name,
                        "fullnameOverride": name,
                        "metrics": {"monitor": {"labels": {"a": name}}},
                        "networkPolicy": {"metricsFrom": [{"podSelector": {"matchLabels": {"a": name}}}]},
                        "config": {"amqp": {"prefix": name}, "events": {"source": name}},
                    },
                )
                manifests = template(given, release=name)
                self.assert_strings(manifests)
                spec = worker(manifests)["spec"]
                self.assertEqual(only(manifests, "Deployment")["metadata"]["name"], name)
                self.assertEqual(spec["containers"][0]["image"], f"registry.example:5000/1:{name}")
                self.assertEqual(spec["priorityClassName"], name)
                self.assertEqual(spec["serviceAccountName"], name)
                self.assertEqual(worker(manifests)["metadata"]["labels"]["app.kubernetes.io/instance"], name)
                self.assertIn(("secret", name, name), files(worker(manifests)).values())
                self.assertIn(("configMap", name, name), files(worker(manifests)).values())
                self.assertEqual(settings(manifests)["amqp"]["prefix"], name)

    def test_what_scalers_are_given(self):
        for name in [*self.NAMES, "1_000", "12:30", "~", "on", "{}", "a: b", "- a", "#", "%x", "'", '"']:
            with self.subTest(name=name):
                scaling = {"kind": "hpa", "hpa": {"metricName": name, "metricSelector": {"queue": name, "vhost": "/"}}}
                manifests = template(overlaid(values("hpa"), {"autoscaling": scaling}))
                self.assert_strings(manifests)
                (metric,) = only(manifests, "HorizontalPodAutoscaler")["spec"]["metrics"]
                self.assertEqual(metric["external"]["metric"]["name"], name)
                self.assertEqual(metric["external"]["metric"]["selector"]["matchLabels"]["queue"], name)
                if name in self.NAMES:
                    secret = {"existingSecret": name, "existingSecretKey": name}
                    over = {"credentials": {"amqp": secret}, "config": {"amqp": {"prefix": name}}}
                    manifests = template(overlaid(values("keda-tls-from-zero"), over))
                    self.assert_strings(manifests)
                    host, *_ = only(manifests, "TriggerAuthentication")["spec"]["secretTargetRef"]
                    self.assertEqual((host["name"], host["key"]), (name, name))
                    trigger = only(manifests, "ScaledObject")["spec"]["triggers"][0]["metadata"]
                    self.assertEqual(trigger["queueName"], f"{name}.requests")
                    self.assertEqual(trigger["value"], "1000")


class Rotation(unittest.TestCase):
    """What restarts the pods, and what must not."""

    def pod(self, **over):
        return worker(template({**values("everything"), **over}))

    def test_another_secret_or_certificate_restarts_nothing(self):
        before = self.pod()
        credentials = json.loads(json.dumps(values("everything")["credentials"]))
        credentials["amqp"]["url"] = "amqps://user:other@rabbitmq.example:5671/renames"
        credentials["api"]["clientSecret"] = "another"
        tls = json.loads(json.dumps(values("everything")["tls"]))
        tls["amqp"]["client"]["certificate"] = "another"
        tls["amqp"]["ca"]["pem"] = "another"
        self.assertEqual(before, self.pod(credentials=credentials, tls=tls))

    def test_another_setting_restarts_the_pods(self):
        config = json.loads(json.dumps(values("everything")["config"]))
        config["consumer"]["concurrency"] = 100
        self.assertNotEqual(self.pod(), self.pod(config=config))

    def test_another_account_s_credentials_restart_the_pods_since_settings_name_their_file(self):
        credentials = json.loads(json.dumps(values("everything")["credentials"]))
        credentials["api"]["accounts"]["T00000001"] = {"token": "x"}
        self.assertNotEqual(self.pod(), self.pod(credentials=credentials))


def policy(manifests) -> dict:
    """The workers' network policy."""
    return only(manifests, "NetworkPolicy", only(manifests, "Deployment")["metadata"]["name"])["spec"]


def alerts(manifests) -> list[dict]:
    groups = [group for m in manifests if m["kind"] == "PrometheusRule" for group in m["spec"]["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def flat(section: dict):
    """A section and every one below it."""
    yield {key: value for key, value in section.items() if not isinstance(value, dict)}
    for value in section.values():
        if isinstance(value, dict):
            yield from flat(value)


def secrets(case: dict):
    """Every secret a case gives."""
    names = {"url", "token", "clientSecret", "privateKey"}

    def walk(value):
        for key, inner in value.items():
            if isinstance(inner, dict):
                yield from walk(inner)
            elif key in names and inner:
                yield inner.split("\n")[1] if "\n" in inner else inner

    yield from walk(case["credentials"])
    yield from walk(case.get("tls", {}))


def selectors(manifest: dict):
    """The label selectors for worker pods in a manifest."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "Service":
        yield spec["selector"]
    elif manifest["kind"] == "NetworkPolicy":
        yield spec["podSelector"]["matchLabels"]
    elif "selector" in spec:
        yield spec["selector"]["matchLabels"]
    for constraint in spec.get("template", {}).get("spec", {}).get("topologySpreadConstraints", []):
        yield constraint["labelSelector"]["matchLabels"]


if __name__ == "__main__":
    unittest.main()
