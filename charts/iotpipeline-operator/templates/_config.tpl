{{/* The operator's configuration file. */}}
{{- define "iotpipeline-operator.config" -}}
image:
  {{- include "iotpipeline-operator.imageConfig" (list .Values.image .Chart.AppVersion) | nindent 2 }}
images:
  {{- with .Values.images.registry }}
  registry: {{ toJson . }}
  {{- end }}
  pullSecrets: {{ toJson (.Values.images.pullSecrets | default list) }}
  {{- range $part := list "mosquitto" "influxdb" "grafana" "bridge" }}
  {{ $part }}:
    {{- include "iotpipeline-operator.imageConfig" (list (index $.Values.images $part) $.Chart.AppVersion) | nindent 4 }}
  {{- end }}
namespaces: {{ toJson (.Values.namespaces | default list) }}
namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* One image in it: what is empty is left out. Takes [image, default tag]. */}}
{{- define "iotpipeline-operator.imageConfig" -}}
{{- $image := index . 0 -}}
{{- $known := dict "repository" $image.repository "tag" ($image.tag | default (index . 1)) -}}
{{- range $key := list "registry" "digest" "pullPolicy" -}}
{{- with index $image $key -}}
{{- $_ := set $known $key . -}}
{{- end -}}
{{- end -}}
{{- toYaml $known -}}
{{- end -}}

{{/* The reference of the operator's own image. */}}
{{- define "iotpipeline-operator.image" -}}
{{- $image := .Values.image -}}
{{- with .Values.images.registry | default $image.registry }}{{ . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end -}}
