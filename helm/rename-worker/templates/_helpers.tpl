{{/* Names, labels and numbers that several templates use. */}}

{{- define "rename-worker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "rename-worker.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "rename-worker.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A name with a suffix that survives the cut: (list . "suffix"). */}}
{{- define "rename-worker.suffixed" -}}
{{- $suffix := index . 1 -}}
{{- $room := int (sub 62 (len $suffix)) -}}
{{- printf "%s-%s" (include "rename-worker.fullname" (index . 0) | trunc $room | trimSuffix "-") $suffix -}}
{{- end -}}

{{- define "rename-worker.selectorLabels" -}}
app.kubernetes.io/name: {{ include "rename-worker.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: worker
{{- end -}}

{{/* Labels of an object, with its own ones: (list . own). Later ones win, none comes twice. */}}
{{- define "rename-worker.labels" -}}
{{- $top := index . 0 -}}
{{- $fixed := dict "helm.sh/chart" (printf "%s-%s" $top.Chart.Name $top.Chart.Version | replace "+" "_")
      "app.kubernetes.io/managed-by" $top.Release.Service -}}
{{- toYaml (merge (dict) $fixed (include "rename-worker.podLabels" . | fromYaml)) -}}
{{- end -}}

{{/* Labels of a pod: without the chart's version, so that a new chart alone restarts nothing. */}}
{{- define "rename-worker.podLabels" -}}
{{- $top := index . 0 -}}
{{- $fixed := dict "app.kubernetes.io/version" ($top.Values.image.tag | default $top.Chart.AppVersion | trunc 63) -}}
{{- toYaml (merge (dict) (include "rename-worker.selectorLabels" $top | fromYaml) $fixed (index . 1) $top.Values.commonLabels) -}}
{{- end -}}

{{- define "rename-worker.image" -}}
{{- $name := .Values.image.repository -}}
{{- with .Values.image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "rename-worker.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "rename-worker.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The same port for probes, metrics and status; config.admin.listen may only choose the family. */}}
{{- define "rename-worker.adminPort" -}}9090{{- end -}}

{{- define "rename-worker.requestQueue" -}}
{{- printf "%s.requests" .Values.config.amqp.prefix -}}
{{- end -}}

{{/* Milliseconds of a duration such as 1h 30m; the schema has checked its form. */}}
{{- define "rename-worker.milliseconds" -}}
{{- $sum := 0 -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" (toString .) -1 -}}
{{- $number := regexFind "^[0-9]+" . -}}
{{- $sum = add $sum (mul (int64 $number) (get $units (trimPrefix $number .))) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* Kubernetes kills what still runs after this: the drain timeout, and room to close connections. */}}
{{- define "rename-worker.gracePeriod" -}}
{{- $drain := include "rename-worker.milliseconds" .Values.config.consumer.drain_timeout | int64 -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add 10 (div (add $drain 999) 1000) -}}
{{- else -}}
{{- int64 .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}

{{/* Pod and container security: the restricted profile, whatever the values say. */}}
{{- define "rename-worker.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.podSecurity.runAsUser }}
runAsUser: {{ int64 . }}
{{- end }}
{{- with .Values.podSecurity.runAsGroup }}
runAsGroup: {{ int64 . }}
{{- end }}
{{- with .Values.podSecurity.fsGroup }}
fsGroup: {{ int64 . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "rename-worker.containerSecurityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* What every pod of the chart says of itself besides its containers. */}}
{{- define "rename-worker.podBasics" -}}
serviceAccountName: {{ include "rename-worker.serviceAccountName" . | quote }}
automountServiceAccountToken: false
# A Service's variables (RENAME_WORKER_PORT and the like) look too much like settings.
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "rename-worker.podSecurityContext" . | nindent 2 }}
{{- end -}}

{{/* resources without the nulls that mean "none". */}}
{{- define "rename-worker.resources" -}}
{{- $resources := dict -}}
{{- range $kind, $amounts := .Values.resources -}}
{{- $set := dict -}}
{{- range $name, $amount := $amounts -}}
{{- if not (kindIs "invalid" $amount) }}{{ $_ := set $set $name $amount }}{{ end -}}
{{- end -}}
{{- with $set }}{{ $_ := set $resources $kind . }}{{ end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* By a variable, not an argument: whatever is run by kubectl exec finds the settings too. */}}
{{- define "rename-worker.env" -}}
- name: RENAME_WORKER_CONFIG
  value: {{ include "rename-worker.settingsFile" . }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
