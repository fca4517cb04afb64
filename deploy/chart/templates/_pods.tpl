{{/* What every pod is allowed: to run as 10001, and nothing else. */}}
{{- define "taskbridge.pod" -}}
automountServiceAccountToken: false
# Kubernetes would add EDGE_… and STREAMS_… variables of its own where Services have such names.
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

{{/* The volume /etc/taskbridge of a part: (list $ "edge" (list "credentials")), and Kafka's properties where there are any.
All parts read the edge's credentials. */}}
{{- define "taskbridge.files" -}}
{{- $root := index . 0 -}}{{- $part := index . 1 -}}{{- $secrets := index . 2 -}}
{{- if include "taskbridge.hasProperties" (list $root $part) }}{{ $secrets = append $secrets "kafkaProperties" }}{{ end -}}
{{- if or $secrets $root.Values.files -}}
- name: files
  projected:
    defaultMode: 0440
    sources:
      {{- range $secrets }}
      - secret: {name: {{ include "taskbridge.secret" (list $root (ternary "edge" $part (eq . "credentials")) .) }}}
      {{- end }}
      {{- with $root.Values.files }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end -}}
{{- end -}}

{{- define "taskbridge.hasProperties" -}}
{{- with index (index . 0).Values (index . 1) "kafkaProperties" }}{{ if or .existingSecret .text }}yes{{ end }}{{ end -}}
{{- end -}}

{{/* Where Kafka and the registry are, as the part with this prefix is told: (list $ "edge" "EDGE"). */}}
{{- define "taskbridge.kafkaEnv" -}}
{{- $root := index . 0 -}}{{- $prefix := index . 2 -}}
- {name: {{ $prefix }}_KAFKA_BOOTSTRAP_SERVERS, value: {{ $root.Values.kafka.bootstrapServers | quote }}}
- {name: {{ $prefix }}_SCHEMA_REGISTRY_URL, value: {{ $root.Values.schemaRegistry.url | quote }}}
- {name: TASKBRIDGE_PARTITIONS, value: {{ $root.Values.kafka.partitions | quote }}}
{{- if include "taskbridge.hasProperties" . }}
- {name: {{ $prefix }}_KAFKA_CONFIG_FILE, value: /etc/taskbridge/kafka.properties}
{{- end }}
{{- end -}}

{{- define "taskbridge.edgeEnv" -}}
- {name: EDGE_HOST, value: 0.0.0.0}
- {name: EDGE_PORT, value: "8400"}
- {name: EDGE_OPERATOR_HOST, value: 0.0.0.0}
- {name: EDGE_OPERATOR_PORT, value: "8401"}
- {name: EDGE_DATA_DIR, value: /var/lib/taskbridge/edge}
- {name: EDGE_CREDENTIALS_FILE, value: /etc/taskbridge/credentials.toml}
{{- with .Values.edge.bearerTokens.existingSecret }}
- name: EDGE_BEARER_TOKENS
  valueFrom: {secretKeyRef: {name: {{ . }}, key: bearer-tokens}}
{{- end }}
{{- end -}}

{{- define "taskbridge.streamsEnv" -}}
{{- $name := include "taskbridge.fullname" . -}}
- {name: STREAMS_HOST, value: 0.0.0.0}
- {name: STREAMS_PORT, value: "8500"}
- {name: STREAMS_DATA_DIR, value: /var/lib/taskbridge/streams}
- {name: STREAMS_API_TOKENS_FILE, value: /etc/taskbridge/api-tokens.toml}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
# The same after each restart: a worker's name in the group has its address in it.
- {name: STREAMS_ADVERTISED_URL, value: "http://$(POD_NAME).{{ $name }}-streams-pods.{{ .Release.Namespace }}.svc:8500"}
- name: STREAMS_EDGE_URLS
  value: {{ range $i := until (int .Values.edge.replicas) }}{{ if $i }},{{ end }}http://{{ $name }}-edge-{{ $i }}.{{ $name }}-edge-pods.{{ $.Release.Namespace }}.svc:8401{{ end }}
{{- if and .Values.reconcile.enabled (not .Values.streams.settings.STREAMS_RECONCILE_URL) }}
- {name: STREAMS_RECONCILE_URL, value: "http://{{ $name }}-reconcile-0.{{ $name }}-reconcile-pods.{{ .Release.Namespace }}.svc:8600"}
{{- end }}
{{- with .Values.streams.clusterSecret.existingSecret }}
- name: STREAMS_CLUSTER_SECRET
  valueFrom: {secretKeyRef: {name: {{ . }}, key: cluster-secret}}
{{- end }}
{{- end -}}
