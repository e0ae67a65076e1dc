{{/* What the three services share. Call each with (dict "root" $ "name" "postgres"). */}}

{{- define "demo.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: mailfleet-demo
{{- end }}

{{/* What is the same in each pod: nobody's rights, no token. */}}
{{- define "demo.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 5
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* ... and in each container. */}}
{{- define "demo.container" -}}
{{- $image := index .root.Values.images .name -}}
name: {{ .name }}
image: {{ with .root.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ $image.repository }}:{{ $image.tag }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
resources: {{- toYaml (index .root.Values.resources .name) | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* The Service in front, with "ports": container ports by name. */}}
{{- define "demo.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "demo.labels" . | nindent 4 }}
spec:
  selector: {{- include "demo.labels" . | nindent 4 }}
  ports:
    {{- range $name, $port := .ports }}
    - {name: {{ $name }}, port: {{ $port }}, targetPort: {{ $name }}}
    {{- end }}
{{- end }}
