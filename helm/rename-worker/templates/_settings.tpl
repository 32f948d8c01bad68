{{/*
The settings file: values.config, with the files of the secrets wired in. Written here rather than
by Helm's toToml, which turns every whole number into a float that the program refuses.
A JSON string, number, boolean or list of strings is the same thing in TOML.
*/}}
{{- define "rename-worker.settings" -}}
{{- $directory := include "rename-worker.secretsDirectory" . -}}
{{- $sections := deepCopy .Values.config -}}
{{- range $section, $credentials := include "rename-worker.apiCredentials" . | fromJson -}}
{{- if not (hasKey $sections $section) }}{{ $_ := set $sections $section dict }}{{ end -}}
{{- with $credentials.clientId }}{{ $_ := set (get $sections $section) "client_id" . }}{{ end -}}
{{- end -}}
{{- range include "rename-worker.files" . | fromJsonArray -}}
{{- $_ := set (get $sections .section) .setting (printf "%s/%s" $directory .file) -}}
{{- end -}}
{{- $blocks := list -}}
{{- range $section := keys $sections | sortAlpha -}}
{{- $lines := list -}}
{{- range $key, $value := get $sections $section -}}
{{- if not (kindIs "invalid" $value) }}{{ $lines = append $lines (printf "%s = %s" $key (toJson $value)) }}{{ end -}}
{{- end -}}
{{- with $lines }}{{ $blocks = append $blocks (printf "[%s]\n%s" $section (join "\n" .)) }}{{ end -}}
{{- end -}}
{{- join "\n\n" $blocks -}}
{{- end -}}
