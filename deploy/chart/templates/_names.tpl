{{/* Maps that a null removes, or that --reuse-values after an older chart leaves out, are empty: first in each template. */}}
{{- define "taskbridge.complete" -}}
{{- $parts := list "edge" "streams" "center" "reconcile" "webhooks" "approvals" "land" "setup" "test" -}}
{{- $maps := list "settings" "kafkaProperties" "database" "credentials" "bearerTokens" "apiTokens" "apiToken" "webhooksToken" "signInSecret" "apps" "reminders" "mcpRules" "endpoints" "autoscaling" "keda" -}}
{{- $paths := list "image" "kafka" "schemaRegistry" "tracing" "routes" "ingress" "gateway" "monitoring.serviceMonitor" "monitoring.prometheusRule" "monitoring.dashboards" -}}
{{- range $part := $parts }}{{ range $maps }}{{ $paths = append $paths (printf "%s.%s" $part .) }}{{ end }}{{ end -}}
{{- range $paths -}}
{{- $map := $.Values -}}
{{- range splitList "." . }}{{ if not (get $map .) }}{{ $_ := set $map . dict }}{{ end }}{{ $map = get $map . }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "taskbridge.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What runs all the time, in one line. */}}
{{- define "taskbridge.parts" -}}
edge streams center{{ if .Values.reconcile.enabled }} reconcile{{ end }}{{ if .Values.webhooks.enabled }} webhooks{{ end }}{{ if .Values.approvals.enabled }} approvals{{ end }}{{ if .Values.land.enabled }} land{{ end }}
{{- end -}}

{{/* Of a part: where its metrics and its health are. */}}
{{- define "taskbridge.operatorPort" -}}
{{- get (dict "edge" "8401" "streams" "8510" "center" "8500" "reconcile" "8600" "webhooks" "8700" "approvals" "8610" "land" "8720") . -}}
{{- end -}}

{{/* Of a part: (list $ "edge"). */}}
{{- define "taskbridge.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "taskbridge.labels" -}}
{{- $root := index . 0 -}}
{{ include "taskbridge.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- define "taskbridge.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end -}}
{{- end -}}

{{/* Of an address: the one that it names, else its scheme's. */}}
{{- define "taskbridge.port" -}}
{{- $parsed := urlParse . -}}
{{- regexFind ":[0-9]+$" $parsed.host | trimPrefix ":" | default (ternary "443" "80" (eq $parsed.scheme "https")) -}}
{{- end -}}

{{/* The name of a Secret of a part, one that is there or ours: (list $ "edge" "credentials"). */}}
{{- define "taskbridge.secret" -}}
{{- $root := index . 0 -}}{{- $part := index . 1 -}}{{- $what := index . 2 -}}
{{- default (printf "%s-%s-%s" (include "taskbridge.fullname" $root) $part (kebabcase $what)) (index $root.Values $part $what).existingSecret -}}
{{- end -}}
