{{- define "rusty-socks.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "rusty-socks.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 57 | trimSuffix "-" }}
{{- else if contains (include "rusty-socks.name" .) .Release.Name }}
{{- .Release.Name | trunc 57 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "rusty-socks.name" .) | trunc 57 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "rusty-socks.selector" -}}
app.kubernetes.io/name: {{ include "rusty-socks.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rusty-socks.labels" -}}
{{ include "rusty-socks.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The key of Prometheus comes last: keys that follow a table in TOML would belong to it. */ -}}
{{- define "rusty-socks.config" -}}
{{ .Values.config | trim }}

[[api_keys]]
name = "prometheus"
key_file = "/etc/rusty_socks/keys/metrics"
scopes = ["read"]
{{- end }}
