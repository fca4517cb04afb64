{{/* What no schema can say: a chart that would come up unsafe, or not at all, is not rendered. */}}
{{- define "taskbridge.checks" -}}
{{- $name := include "taskbridge.fullname" . -}}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" $name) }}{{ fail (printf "%s: a Service's name begins with a letter, and has no dot: rename the release, or set fullnameOverride" $name) }}{{ end -}}
{{- with .Values -}}
{{- if not .image.repository }}{{ fail "image.repository: say where your image is; `make image` builds one, no registry has it" }}{{ end -}}
{{- if not .kafka.bootstrapServers }}{{ fail "kafka.bootstrapServers: say where Kafka is, host:port" }}{{ end -}}
{{- range splitList "," .kafka.bootstrapServers }}{{ if not (regexMatch ":[0-9]+\\s*$" .) }}{{ fail "kafka.bootstrapServers: each needs its port, host:port" }}{{ end }}{{ end -}}
{{- if not .schemaRegistry.url }}{{ fail "schemaRegistry.url: say where the schema registry is" }}{{ end -}}
{{- include "taskbridge.one" (list "edge.credentials" .edge.credentials "without apps no callback is accepted") -}}
{{- include "taskbridge.one" (list "center.apiTokens" .center.apiTokens "without tokens everybody in the cluster could read all tasks") -}}
{{- if .reconcile.enabled }}{{ include "taskbridge.one" (list "reconcile.apps" .reconcile.apps "it says whom to ask, and in whose name") }}{{ end -}}
{{- if .webhooks.enabled }}{{ include "taskbridge.one" (list "webhooks.endpoints" .webhooks.endpoints "it says who gets notifications") }}{{ end -}}
{{- if and .approvals.enabled (not .approvals.credentials.existingSecret) }}{{ fail "approvals.credentials.existingSecret: it says who receives DingTalk's approvals, and signs them for the edge" }}{{ end -}}
{{- if and .land.enabled (not .land.database.existingSecret) }}{{ fail "land.database.existingSecret: it says which database gets your data" }}{{ end -}}
{{- range $part := list "edge" "streams" "center" "reconcile" "webhooks" "land" "setup" -}}
{{- with index $.Values $part "kafkaProperties" }}{{ if and .existingSecret .text }}{{ fail (printf "%s.kafkaProperties: existingSecret or text, not both" $part) }}{{ end }}{{ end -}}
{{- end -}}
{{- range $part := list "center" "webhooks" -}}
{{- with index $.Values $part }}{{ if and (gt (int .replicas) 1) (not .database.existingSecret) }}{{ fail (printf "%s.database.existingSecret: several replicas need PostgreSQL" $part) }}{{ end }}{{ end -}}
{{- end -}}
{{- if and .center.autoscaling.enabled (not .center.database.existingSecret) }}{{ fail "center.database.existingSecret: several replicas need PostgreSQL" }}{{ end -}}
{{- range $part, $scaler := dict "edge" "autoscaling" "center" "autoscaling" "streams" "keda" -}}
{{- $own := index $.Values $part -}}
{{- with index $own $scaler }}{{ if and .enabled (gt (int $own.replicas) (int .maxReplicas)) }}{{ fail (printf "%s.%s.maxReplicas: %d are fewer than %s.replicas" $part $scaler (int .maxReplicas) $part) }}{{ end }}{{ end -}}
{{- end -}}
{{- if and (or .ingress.enabled .gateway.enabled) (not (or .routes.callbacks .routes.center)) }}{{ fail "routes: name the hosts that lead to the edge and to the task center" }}{{ end -}}
{{- if and .gateway.enabled (not .gateway.parents) }}{{ fail "gateway.parents: name the Gateway, as in parentRefs" }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "taskbridge.one" -}}
{{- $name := index . 0 -}}{{- $given := index . 1 -}}
{{- if and $given.existingSecret $given.text }}{{ fail (printf "%s: existingSecret or text, not both" $name) }}{{ end -}}
{{- if not (or $given.existingSecret $given.text) }}{{ fail (printf "%s: existingSecret or text is needed: %s" $name (index . 2)) }}{{ end -}}
{{- end -}}
