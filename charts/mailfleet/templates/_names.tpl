{{/* Names, labels and image references that several templates use. */}}

{{/* The operator's objects: the release's name, with -operator behind it. */}}
{{- define "mailfleet.operator" -}}
{{- printf "%s-operator" (.Release.Name | trunc 50 | trimSuffix "-") -}}
{{- end }}

{{/* Cluster-wide objects carry the namespace too, so that two releases of one name do not meet. */}}
{{- define "mailfleet.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "mailfleet.operator" .) -}}
{{- end }}

{{- define "mailfleet.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "mailfleet.operator" .) -}}
{{- else -}}
{{- required "serviceAccount.name is required with serviceAccount.create=false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "mailfleet.selector" -}}
app.kubernetes.io/name: mailfleet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "mailfleet.labels" -}}
{{ include "mailfleet.selector" . }}
{{ include "mailfleet.commonLabels" . }}
{{- end }}

{{- define "mailfleet.commonLabels" -}}
app.kubernetes.io/part-of: mailfleet
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* registry/repository:tag or @digest. Call with (dict "root" $ "image" .Values.operator.image). */}}
{{- define "mailfleet.image" -}}
{{- $repository := .image.repository -}}
{{- with .image.registry }}{{ $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}{{ end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end }}

{{/* The Secret that the operator reads. */}}
{{- define "mailfleet.secret" -}}
{{- .Values.existingSecret | default (include "mailfleet.operator" .) -}}
{{- end }}

{{/* The two URLs as a Secret's content, and whom to trust. */}}
{{- define "mailfleet.urls" -}}
ledger-url: {{ required "ledger.url is required (postgresql://user:password@host:5432/database), or existingSecret" .Values.ledger.url | quote }}
redis-url: {{ required "redis.url is required (redis://host:6379/0), or existingSecret" .Values.redis.url | quote }}
{{- with .Values.caCertificates }}
ca.crt: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Whom to trust, as a volume: empty where the Secret says nothing of it. The operator's Jobs have the same. */}}
{{- define "mailfleet.trust" -}}
name: trust
secret:
  secretName: {{ include "mailfleet.secret" . }}
  optional: true
  items: [{key: ca.crt, path: ca.crt}]
{{- end }}

{{/* The two URLs as variables of a container. */}}
{{- define "mailfleet.urlVariables" -}}
- name: MAILFLEET_LEDGER_URL
  valueFrom: {secretKeyRef: {name: {{ include "mailfleet.secret" . }}, key: ledger-url}}
- name: MAILFLEET_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ include "mailfleet.secret" . }}, key: redis-url}}
{{- end }}
