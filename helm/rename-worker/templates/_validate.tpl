{{/*
Refuses combinations of values that can't work, all of them at once. What one value alone must look
like is values.schema.json's part, which Helm applies before it gets here. Never prints a secret.
*/}}
{{- define "rename-worker.validate" -}}
{{- $mistakes := concat
      (include "rename-worker.mistakes.credentials" . | fromJsonArray)
      (include "rename-worker.mistakes.tls" . | fromJsonArray)
      (include "rename-worker.mistakes.config" . | fromJsonArray)
      (include "rename-worker.mistakes.pods" . | fromJsonArray)
      (include "rename-worker.mistakes.network" . | fromJsonArray) -}}
{{- if $mistakes -}}
{{- fail (printf "%d mistake(s) in the values:\n- %s\n" (len $mistakes) (join "\n- " $mistakes)) -}}
{{- end -}}
{{- end -}}

{{- define "rename-worker.mistakes.credentials" -}}
{{- $mistakes := list -}}
{{- $amqp := .Values.credentials.amqp -}}
{{- if and $amqp.url $amqp.existingSecret -}}
{{- $mistakes = append $mistakes "credentials.amqp: url and existingSecret exclude each other" -}}
{{- else if not (or $amqp.url $amqp.existingSecret) -}}
{{- $mistakes = append $mistakes "credentials.amqp: the broker's URL is missing; give it as url, or name the Secret that holds it as existingSecret" -}}
{{- else if and $amqp.url (not (regexMatch "^amqps?://[^/]" $amqp.url)) -}}
{{- $mistakes = append $mistakes "credentials.amqp.url: must look like amqps://user:password@host:5671/vhost (not shown, it may hold a password)" -}}
{{- end -}}

{{- $found := false -}}
{{- range $section, $api := include "rename-worker.apiCredentials" . | fromJson -}}
{{- $at := printf "credentials.%s" $section -}}
{{- if or $api.token $api.clientId $api.clientSecret $api.existingSecret }}{{ $found = true }}
{{- else if ne $section "api" }}{{ $mistakes = append $mistakes (printf "%s: no credentials; give token, clientId and clientSecret, or existingSecret" $at) }}{{ end -}}
{{- if and $api.token (or $api.clientId $api.clientSecret) -}}
{{- $mistakes = append $mistakes (printf "%s: token excludes clientId and clientSecret" $at) -}}
{{- end -}}
{{- if and $api.existingSecret (or $api.token $api.clientSecret) -}}
{{- $mistakes = append $mistakes (printf "%s: existingSecret excludes token and clientSecret" $at) -}}
{{- end -}}
{{- if and $api.clientSecret (not $api.clientId) -}}
{{- $mistakes = append $mistakes (printf "%s: clientSecret needs clientId" $at) -}}
{{- end -}}
{{- if and $api.clientId (not (or $api.clientSecret $api.existingSecret)) -}}
{{- $mistakes = append $mistakes (printf "%s: clientId needs clientSecret, or existingSecret that holds it" $at) -}}
{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- $mistakes = append $mistakes "credentials.api: no credentials for the API; give token, clientId and clientSecret, or existingSecret (or some per account under accounts)" -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{- define "rename-worker.mistakes.tls" -}}
{{- $mistakes := list -}}
{{- range $section := list "amqp" "api" -}}
{{- $ca := (get $.Values.tls $section).ca -}}
{{- if gt (len (compact (list $ca.pem $ca.existingSecret $ca.existingConfigMap))) 1 -}}
{{- $mistakes = append $mistakes (printf "tls.%s.ca: pem, existingSecret and existingConfigMap exclude each other" $section) -}}
{{- end -}}
{{- end -}}
{{- $client := .Values.tls.amqp.client -}}
{{- if and $client.existingSecret (or $client.certificate $client.privateKey) -}}
{{- $mistakes = append $mistakes "tls.amqp.client: existingSecret excludes certificate and privateKey" -}}
{{- else if ne (empty $client.certificate) (empty $client.privateKey) -}}
{{- $mistakes = append $mistakes "tls.amqp.client: certificate and privateKey need each other" -}}
{{- end -}}
{{- $ca := .Values.tls.amqp.ca -}}
{{- $used := or $ca.pem $ca.existingSecret $ca.existingConfigMap $client.certificate $client.existingSecret -}}
{{- if and $used (hasPrefix "amqp://" .Values.credentials.amqp.url) -}}
{{- $mistakes = append $mistakes "tls.amqp: certificates need amqps:// in credentials.amqp.url, which begins with amqp://" -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{/* The program's rules that a schema can't say; the chart's test holds the two against each other. */}}
{{- define "rename-worker.mistakes.config" -}}
{{- $mistakes := list -}}
{{- range $section, $secrets := dict "amqp" (list "url" "url_file" "ca_file" "client_cert_file" "client_key_file") "api" (list "token" "token_file" "client_id" "client_secret" "client_secret_file" "ca_file" "accounts") -}}
{{- range $key := $secrets -}}
{{- if hasKey (get $.Values.config $section) $key -}}
{{- $mistakes = append $mistakes (printf "config.%s.%s: does not belong in the ConfigMap; the chart wires it from %s" $section $key (ternary (printf "tls.%s" $section) (printf "credentials.%s" $section) (regexMatch "^(ca|client_cert|client_key)_file$" $key))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $api := .Values.config.api -}}
{{- $host := regexReplaceAll ":[0-9]+$" (urlParse $api.base_url).host "" -}}
{{- $loopback := or (eq $host "localhost") (eq $host "[::1]") (hasPrefix "127." $host) -}}
{{- if and (hasPrefix "http://" $api.base_url) (not $loopback) (not $api.allow_insecure) -}}
{{- $mistakes = append $mistakes (printf "config.api.base_url: plain http to %s would send credentials in the clear; use https, or allow it by config.api.allow_insecure" $host) -}}
{{- end -}}
{{- range $rule := include "rename-worker.durationBounds" . | fromJsonArray -}}
{{- $path := splitList "." $rule.key -}}
{{- $given := get (get $.Values.config (first $path)) (last $path) -}}
{{- if $given -}}
{{- $time := include "rename-worker.milliseconds" $given | int64 -}}
{{- if or (lt $time (include "rename-worker.milliseconds" $rule.min | int64)) (gt $time (include "rename-worker.milliseconds" $rule.max | int64)) -}}
{{- $mistakes = append $mistakes (printf "config.%s: %s does not fit; say a duration from %s to %s" $rule.key $given $rule.min $rule.max) -}}
{{- end -}}
{{- if $rule.below -}}
{{- $path = splitList "." $rule.below -}}
{{- $bound := get (get $.Values.config (first $path)) (last $path) -}}
{{- if and $bound (gt $time (include "rename-worker.milliseconds" $bound | int64)) -}}
{{- $mistakes = append $mistakes (printf "config.%s: %s is longer than config.%s, %s" $rule.key $given $rule.below $bound) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $last := 0 -}}
{{- range .Values.config.retry.ladder -}}
{{- $step := include "rename-worker.milliseconds" . | int64 -}}
{{- if or (le $step (int64 $last)) (gt $step (int64 86400000)) -}}
{{- $mistakes = append $mistakes (printf "config.retry.ladder: %s does not fit; steps ascend, from 1ms to 24h" .) -}}
{{- end -}}
{{- $last = $step -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{- define "rename-worker.mistakes.pods" -}}
{{- $mistakes := list -}}
{{- $drain := include "rename-worker.milliseconds" .Values.config.consumer.drain_timeout | int64 -}}
{{- $grace := include "rename-worker.gracePeriod" . | int64 -}}
{{- if le (mul $grace 1000) $drain -}}
{{- $mistakes = append $mistakes (printf "terminationGracePeriodSeconds: %d s must be more than config.consumer.drain_timeout, %s, or Kubernetes kills a worker that is still draining" $grace .Values.config.consumer.drain_timeout) -}}
{{- end -}}

{{- $scaling := .Values.autoscaling -}}
{{- $scales := ne $scaling.kind "none" -}}
{{- if and .Values.strictOrder (not $scales) (gt (int .Values.replicas) 1) -}}
{{- $mistakes = append $mistakes (printf "replicas: %d workers can't keep the order of requests that share a name; set strictOrder: false to give that order up" (int .Values.replicas)) -}}
{{- end -}}
{{- if and .Values.strictOrder $scales -}}
{{- $mistakes = append $mistakes (printf "autoscaling.kind: %s starts several workers, which can't keep the order of requests that share a name; set strictOrder: false to give that order up" $scaling.kind) -}}
{{- end -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- $mistakes = append $mistakes (printf "autoscaling: minReplicas, %d, is more than maxReplicas, %d" (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- if and (eq (int $scaling.minReplicas) 0) (eq $scaling.kind "hpa") -}}
{{- $mistakes = append $mistakes "autoscaling.minReplicas: a HorizontalPodAutoscaler can't scale to 0; use 1, or kind: keda" -}}
{{- end -}}
{{- if and (eq (int $scaling.minReplicas) 0) (eq $scaling.kind "keda") .Values.config.amqp.declare_topology -}}
{{- $mistakes = append $mistakes "autoscaling.minReplicas: from 0 workers none would ever declare the queue KEDA looks at; use 1, or declare the topology beforehand and set config.amqp.declare_topology: false" -}}
{{- end -}}

{{- $ours := list "helm.sh/chart" "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" -}}
{{- range $at, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "metrics.monitor.labels" .Values.metrics.monitor.labels "metrics.prometheusRule.labels" .Values.metrics.prometheusRule.labels "metrics.dashboards.labels" .Values.metrics.dashboards.labels -}}
{{- range $label, $_ := $labels -}}
{{- if has $label $ours }}{{ $mistakes = append $mistakes (printf "%s: %s is the chart's own label" $at $label) }}{{ end -}}
{{- end -}}
{{- end -}}

{{- range .Values.extraEnv -}}
{{- if and (hasPrefix "RENAME_WORKER_" .name) (not (has .name (list "RENAME_WORKER_API__PROXY" "RENAME_WORKER_OTLP__PROXY" "RENAME_WORKER_LOG__HASH_KEY"))) -}}
{{- $mistakes = append $mistakes (printf "extraEnv: %s is a setting; set it under config, credentials or tls, where the chart sees it too" .name) -}}
{{- end -}}
{{- end -}}

{{- $budget := .Values.podDisruptionBudget -}}
{{- if and $budget.enabled (ne (kindIs "invalid" $budget.minAvailable) (not (kindIs "invalid" $budget.maxUnavailable))) -}}
{{- $mistakes = append $mistakes "podDisruptionBudget: set one of maxUnavailable and minAvailable, and the other to null" -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{- define "rename-worker.mistakes.network" -}}
{{- $mistakes := list -}}
{{- with .Values.credentials.amqp.url -}}
{{- $port := include "rename-worker.amqpPort" . | int -}}
{{- $open := list -}}
{{- range include "rename-worker.brokerPorts" $ | fromJsonArray }}{{ $open = append $open (int .) }}{{ end -}}
{{- if and $.Values.networkPolicy.enabled (not (has $port $open)) -}}
{{- $mistakes = append $mistakes (printf "networkPolicy.amqp.ports: the broker's port %d (from credentials.amqp.url) isn't among them" $port) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (ne .Values.metrics.monitor.kind "none") (not .Values.networkPolicy.metricsFrom) -}}
{{- $mistakes = append $mistakes (printf "networkPolicy.metricsFrom: empty, so no Prometheus can reach what the %s tells it to scrape; name its namespace or pods" .Values.metrics.monitor.kind) -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.dns.to) -}}
{{- $mistakes = append $mistakes "networkPolicy.dns.to: empty, so nobody answers DNS; name the namespace or address of the cluster's DNS" -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{/* The program's bounds of each duration. "below" names the setting it may not exceed. */}}
{{- define "rename-worker.durationBounds" -}}
[
  {"key": "api.timeout", "min": "10ms", "max": "5m", "below": ""},
  {"key": "api.connect_timeout", "min": "10ms", "max": "1m", "below": "api.timeout"},
  {"key": "consumer.drain_timeout", "min": "0s", "max": "10m", "below": ""},
  {"key": "dead_letters.keep_discarded", "min": "1s", "max": "365d", "below": ""},
  {"key": "retry.initial_delay", "min": "1ms", "max": "1h", "below": "retry.max_delay"},
  {"key": "retry.max_delay", "min": "1ms", "max": "24h", "below": ""},
  {"key": "retry.max_elapsed", "min": "1s", "max": "30d", "below": ""},
  {"key": "retry.local_wait", "min": "0s", "max": "1m", "below": ""},
  {"key": "hold.first_probe", "min": "10ms", "max": "1h", "below": "hold.max_probe"},
  {"key": "hold.max_probe", "min": "10ms", "max": "1h", "below": ""}
]
{{- end -}}
