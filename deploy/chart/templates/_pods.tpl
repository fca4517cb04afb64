{{/* What every pod is allowed: to run as 10001, and nothing else. */}}
{{- define "taskbridge.pod" -}}
automountServiceAccountToken: false
# Kubernetes would add EDGE_…, STREAMS_…, CENTER_… and WEBHOOKS_… variables of its own where Services have such names.
enableServiceLinks: false
{{- with .Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "taskbridge.container" -}}
image: {{ include "taskbridge.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* The volume /etc/taskbridge of a part, of those Secrets that are given, and of Kafka's properties:
(list $ "edge" (list "credentials")). All parts read the edge's credentials. */}}
{{- define "taskbridge.files" -}}
{{- $root := index . 0 -}}{{- $part := index . 1 -}}{{- $secrets := list -}}
{{- range $what := append (index . 2) "kafkaProperties" -}}
{{- $owner := ternary "edge" $part (eq $what "credentials") -}}
{{- with index $root.Values $owner $what }}{{ if or .existingSecret .text }}{{ $secrets = append $secrets (include "taskbridge.secret" (list $root $owner $what)) }}{{ end }}{{ end -}}
{{- end -}}
{{- if or $secrets $root.Values.files -}}
- name: files
  projected:
    defaultMode: 0440
    sources:
      {{- range $secrets }}
      - secret: {name: {{ . }}}
      {{- end }}
      {{- with $root.Values.files }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end -}}
{{- end -}}

{{/* The addresses of Kafka and the registry, for the settings with this prefix: (list $ "edge" "EDGE"). */}}
{{- define "taskbridge.kafkaEnv" -}}
{{- $root := index . 0 -}}{{- $prefix := index . 2 -}}
- {name: {{ $prefix }}_KAFKA_BOOTSTRAP_SERVERS, value: {{ $root.Values.kafka.bootstrapServers | quote }}}
- {name: {{ $prefix }}_SCHEMA_REGISTRY_URL, value: {{ $root.Values.schemaRegistry.url | quote }}}
- {name: TASKBRIDGE_PARTITIONS, value: {{ $root.Values.kafka.partitions | quote }}}
{{- with index $root.Values (index . 1) "kafkaProperties" }}{{ if or .existingSecret .text }}
- {name: {{ $prefix }}_KAFKA_CONFIG_FILE, value: /etc/taskbridge/kafka.properties}
{{- end }}{{ end }}
{{- end -}}

{{- define "taskbridge.edgeEnv" -}}
- {name: EDGE_HOST, value: 0.0.0.0}
- {name: EDGE_PORT, value: "8400"}
- {name: EDGE_OPERATOR_HOST, value: 0.0.0.0}
- {name: EDGE_OPERATOR_PORT, value: "8401"}
- {name: EDGE_DATA_DIR, value: /var/lib/taskbridge/edge}
{{- include "taskbridge.callbacksEnv" . }}
{{- end -}}

{{/* By which the edge verifies callbacks, and the doctor signs one. */}}
{{- define "taskbridge.callbacksEnv" }}
- {name: EDGE_CREDENTIALS_FILE, value: /etc/taskbridge/credentials.toml}
{{- with .Values.edge.bearerTokens.existingSecret }}
- name: EDGE_BEARER_TOKENS
  valueFrom: {secretKeyRef: {name: {{ . }}, key: bearer-tokens}}
{{- end }}
{{- end -}}

{{- define "taskbridge.streamsEnv" -}}
- {name: STREAMS_HOST, value: 0.0.0.0}
- {name: STREAMS_PORT, value: "8510"}
- {name: STREAMS_DATA_DIR, value: /var/lib/taskbridge/streams}
{{- end -}}

{{/* Each name has the addresses of all pods of the part. */}}
{{- define "taskbridge.centerEnv" -}}
{{- $name := include "taskbridge.fullname" . -}}
- {name: CENTER_HOST, value: 0.0.0.0}
- {name: CENTER_PORT, value: "8500"}
- {name: CENTER_DATA_DIR, value: /var/lib/taskbridge/center}
- {name: CENTER_API_TOKENS_FILE, value: /etc/taskbridge/api-tokens.toml}
- {name: CENTER_EDGE_URLS, value: "http://{{ $name }}-edge-pods.{{ .Release.Namespace }}.svc:8401"}
- {name: CENTER_STREAMS_URLS, value: "http://{{ $name }}-streams-pods.{{ .Release.Namespace }}.svc:8510"}
{{- with .Values.center.reminders }}{{ if or .existingSecret .text }}
- {name: CENTER_REMINDERS_FILE, value: /etc/taskbridge/reminders.toml}
{{- end }}{{ end }}
{{- with .Values.center.mcpRules }}{{ if or .existingSecret .text }}
- {name: CENTER_MCP_RULES_FILE, value: /etc/taskbridge/mcp-rules.toml}
{{- end }}{{ end }}
{{- range $what := list "apps" "credentials" }}{{ with index $.Values.center $what }}{{ if or .existingSecret .text }}
- {name: CENTER_{{ upper $what }}_FILE, value: /etc/taskbridge/{{ $what }}.toml}
{{- end }}{{ end }}{{ end }}
{{- with .Values.center.signInSecret }}{{ if or .existingSecret .text }}
- {name: CENTER_{{ if $.Values.center.settings.CENTER_DINGTALK_CLIENT_ID }}DINGTALK{{ else }}OIDC{{ end }}_CLIENT_SECRET_FILE, value: /etc/taskbridge/sign-in-secret}
{{- end }}{{ end }}
{{- if and .Values.reconcile.enabled (not .Values.center.settings.CENTER_RECONCILE_URL) }}
- {name: CENTER_RECONCILE_URL, value: "http://{{ $name }}-reconcile-0.{{ $name }}-reconcile-pods.{{ .Release.Namespace }}.svc:8600"}
{{- end }}
{{- if .Values.webhooks.enabled }}
- {name: CENTER_WEBHOOKS_URLS, value: "http://{{ $name }}-webhooks-pods.{{ .Release.Namespace }}.svc:8700"}
{{- with .Values.center.webhooksToken }}{{ if or .existingSecret .text }}
- {name: CENTER_WEBHOOKS_TOKEN_FILE, value: /etc/taskbridge/webhooks-token}
{{- end }}{{ end }}
{{- end }}
{{- end -}}

{{- define "taskbridge.webhooksEnv" -}}
- {name: WEBHOOKS_HOST, value: 0.0.0.0}
- {name: WEBHOOKS_PORT, value: "8700"}
- {name: WEBHOOKS_DATA_DIR, value: /var/lib/taskbridge/webhooks}
- {name: WEBHOOKS_ENDPOINTS_FILE, value: /etc/taskbridge/endpoints.toml}
{{- with .Values.webhooks.apiTokens }}{{ if or .existingSecret .text }}
- {name: WEBHOOKS_API_TOKENS_FILE, value: /etc/taskbridge/api-tokens.toml}
{{- end }}{{ end }}
{{- end -}}

{{/* (list $ "center") */}}
{{- define "taskbridge.databaseEnv" -}}
{{- with (index (index . 0).Values (index . 1)).database.existingSecret -}}
- name: {{ index $ 1 | upper }}_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ . }}, key: database-url}}
{{- end }}
{{- end -}}

{{/* Where pods of a part may run: (list $ "edge"). */}}
{{- define "taskbridge.placement" -}}
{{- $root := index . 0 -}}{{- $part := index . 1 -}}{{- $own := index $root.Values $part -}}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.topologySpread }}
topologySpreadConstraints:
  {{- range . }}
  - {{- toYaml . | nindent 4 }}
    labelSelector:
      matchLabels:
        {{- include "taskbridge.selector" (list $root $part) | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* (list "http" "/readyz"): the port, and what says whether a pod is ready. */}}
{{- define "taskbridge.probes" -}}
# A spool after a crash, or a busy node.
startupProbe:
  httpGet: {path: /healthz, port: {{ index . 0 }}}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 150
# Only what does nothing at all any more: a worker that stalls ends by itself after two minutes.
livenessProbe:
  httpGet: {path: /healthz, port: {{ index . 0 }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
# Workers are not ready while partitions move, all at once: three times in a row is longer than that.
readinessProbe:
  httpGet: {path: {{ index . 1 }}, port: {{ index . 0 }}}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 3
{{- end -}}

{{/* One at a time, and never none: with one replica a node can be drained, too. */}}
{{- define "taskbridge.budget" -}}
{{- $root := index . 0 -}}{{- $part := index . 1 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "taskbridge.fullname" $root }}-{{ $part }}
  labels:
    {{- include "taskbridge.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "taskbridge.selector" . | nindent 6 }}
{{- end -}}

{{/* As many as an autoscaler has made of them, else those of the values: (list $ "edge" "StatefulSet"). */}}
{{- define "taskbridge.replicas" -}}
{{- $root := index . 0 -}}{{- $part := index . 1 -}}{{- $own := index $root.Values $part -}}
{{- $scaled := or (default dict $own.autoscaling).enabled (default dict $own.keda).enabled -}}
{{- $name := printf "%s-%s" (include "taskbridge.fullname" $root) $part -}}
{{- $there := ternary (lookup "apps/v1" (index . 2) $root.Release.Namespace $name) dict (not (not $scaled)) -}}
{{- max $own.replicas (dig "spec" "replicas" 0 $there) -}}
{{- end -}}
