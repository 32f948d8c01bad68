{{/*
Every secret or certificate the worker reads from a file, as one table (a JSON list): the setting it
is wired to, the file's name, where it comes from, and its content when the values give it. The
settings file, the Secret, the volume and KEDA's authentication are all made from this table.
*/}}
{{- define "rename-worker.files" -}}
{{- $own := include "rename-worker.fullname" . -}}
{{- $files := list -}}

{{- $amqp := .Values.credentials.amqp -}}
{{- $files = append $files (dict "section" "amqp" "setting" "url_file" "file" "amqp-url"
      "content" $amqp.url "secret" ($amqp.existingSecret | default $own)
      "key" (ternary $amqp.existingSecretKey "amqp-url" (not (empty $amqp.existingSecret)))) -}}

{{- range $section, $credentials := include "rename-worker.apiCredentials" . | fromJson -}}
{{- if or $credentials.token $credentials.clientSecret $credentials.existingSecret -}}
{{- $what := ternary "client-secret" "token" (not (empty $credentials.clientId)) -}}
{{- $file := printf "%s-%s" ($section | replace "." "-") $what -}}
{{- $files = append $files (dict "section" $section
      "setting" (printf "%s_file" ($what | replace "-" "_")) "file" $file
      "content" (ternary $credentials.clientSecret $credentials.token (eq $what "client-secret"))
      "secret" ($credentials.existingSecret | default $own)
      "key" (ternary ($credentials.existingSecretKey | default $what) $file (not (empty $credentials.existingSecret)))) -}}
{{- end -}}
{{- end -}}

{{- range $section := list "amqp" "api" -}}
{{- $ca := (get $.Values.tls $section).ca -}}
{{- $file := printf "%s-ca.crt" $section -}}
{{- if $ca.existingConfigMap -}}
{{- $files = append $files (dict "section" $section "setting" "ca_file" "file" $file "configMap" $ca.existingConfigMap "key" $ca.key) -}}
{{- else if $ca.existingSecret -}}
{{- $files = append $files (dict "section" $section "setting" "ca_file" "file" $file "secret" $ca.existingSecret "key" $ca.key) -}}
{{- else if $ca.pem -}}
{{- $files = append $files (dict "section" $section "setting" "ca_file" "file" $file "secret" $own "key" $file "content" $ca.pem) -}}
{{- end -}}
{{- end -}}

{{- $client := .Values.tls.amqp.client -}}
{{- if or $client.existingSecret $client.certificate -}}
{{- $given := empty $client.existingSecret -}}
{{- $secret := $client.existingSecret | default $own -}}
{{- $files = append $files (dict "section" "amqp" "setting" "client_cert_file" "file" "amqp-client.crt" "secret" $secret
      "key" (ternary "amqp-client.crt" $client.certificateKey $given) "content" $client.certificate) -}}
{{- $files = append $files (dict "section" "amqp" "setting" "client_key_file" "file" "amqp-client.key" "secret" $secret
      "key" (ternary "amqp-client.key" $client.privateKeyKey $given) "content" $client.privateKey) -}}
{{- end -}}
{{- toJson $files -}}
{{- end -}}

{{/* Credentials by the section of the settings they belong to, missing keys filled in. */}}
{{- define "rename-worker.apiCredentials" -}}
{{- $blank := dict "token" "" "clientId" "" "clientSecret" "" "existingSecret" "" "existingSecretKey" "" -}}
{{- $all := dict "api" (merge (dict) (omit .Values.credentials.api "accounts") $blank) -}}
{{- range $account, $credentials := .Values.credentials.api.accounts -}}
{{- $_ := set $all (printf "api.accounts.%s" $account) (merge (dict) $credentials $blank) -}}
{{- end -}}
{{- toJson $all -}}
{{- end -}}

{{- define "rename-worker.secretsDirectory" -}}/etc/rename-worker/secrets{{- end -}}
{{- define "rename-worker.settingsFile" -}}/etc/rename-worker/config/rename-worker.toml{{- end -}}

{{/*
One projected volume for all of them. Never mounted by subPath, which would freeze the files:
the kubelet swaps a projected volume's files when a Secret changes.
*/}}
{{- define "rename-worker.volumes" -}}
- name: config
  configMap:
    name: {{ include "rename-worker.fullname" . | quote }}
- name: secrets
  projected:
    # Without fsGroup the files belong to root, and only the world bit lets the worker read them.
    defaultMode: {{ ternary 0444 0440 (kindIs "invalid" .Values.podSecurity.fsGroup) }}
    sources:
      {{- range include "rename-worker.files" . | fromJsonArray }}
      - {{ ternary "configMap" "secret" (hasKey . "configMap") }}:
          name: {{ .configMap | default .secret | quote }}
          items:
            - key: {{ .key | quote }}
              path: {{ .file | quote }}
      {{- end }}
{{- end -}}

{{- define "rename-worker.volumeMounts" -}}
- name: config
  mountPath: {{ include "rename-worker.settingsFile" . | dir }}
  readOnly: true
- name: secrets
  mountPath: {{ include "rename-worker.secretsDirectory" . }}
  readOnly: true
{{- end -}}
