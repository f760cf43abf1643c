{{/* Labels by which the agents' pods are found; they never change. */}}
{{- define "palisade.selector" -}}
app.kubernetes.io/name: palisade
{{- end }}

{{/* Labels of every object. */}}
{{- define "palisade.labels" -}}
{{ include "palisade.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Where the agent serves metrics. */}}
{{- define "palisade.metricsAddress" -}}
{{- $any := ternary "0.0.0.0" "127.0.0.1" .Values.podMonitor.enabled -}}
{{- .Values.metrics.address | default (printf "%s:%d" $any (int .Values.metrics.port)) -}}
{{- end }}
