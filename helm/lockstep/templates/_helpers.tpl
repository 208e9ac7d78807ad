{{- define "lockstep.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "lockstep.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "lockstep.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "lockstep.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects pods: never changes in the life of a release. Of (list root component). */}}
{{- define "lockstep.selector" -}}
app.kubernetes.io/name: {{ include "lockstep.name" (index . 0) }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object. Of (list root component). */}}
{{- define "lockstep.labels" -}}
{{- $root := index . 0 -}}
{{ include "lockstep.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: lockstep
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of a pod: no version, which would restart pods that have not changed. Of (list root component tier). */}}
{{- define "lockstep.podLabels" -}}
{{ include "lockstep.selector" . }}
app.kubernetes.io/part-of: lockstep
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- with (index . 2).podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels and annotations of a pod that comes and goes. Of (list root component). */}}
{{- define "lockstep.jobs.metadata" -}}
labels:
  {{- include "lockstep.podLabels" (list (index . 0) (index . 1) (index . 0).Values.jobs) | nindent 2 }}
{{- with (index . 0).Values.jobs.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "lockstep.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "lockstep.cluster" -}}
{{- .Values.cluster.name | default (printf "%s.%s" .Release.Namespace (include "lockstep.fullname" .)) -}}
{{- end -}}

{{/* How the names of the certificates' Secrets begin. */}}
{{- define "lockstep.secrets" -}}
{{- if eq .Values.certificates.mode "existingSecrets" -}}
{{- .Values.certificates.existingSecrets.prefix | default (include "lockstep.cluster" .) -}}
{{- else -}}
{{- include "lockstep.fullname" . -}}
{{- end -}}
{{- end -}}

{{/* Members, witnesses counted. */}}
{{- define "lockstep.members" -}}
{{- add (int .Values.server.replicas) (int .Values.server.witnesses) -}}
{{- end -}}

{{/* A setting in a container's arguments as it is meant: Kubernetes takes $$ for $, and $(NAME) for a variable. */}}
{{- define "lockstep.literal" -}}
{{- . | replace "$" "$$" | quote -}}
{{- end -}}

{{/* Where the servers are. All ids that there may ever be, so that no pod changes with their number. */}}
{{- define "lockstep.servers" -}}
{{- $full := include "lockstep.fullname" . -}}
{{- $places := list -}}
{{- range $id := until (ternary 1 15 (eq (include "lockstep.members" .) "1")) -}}
{{- $places = append $places (printf "%d=%s-server-%d.%s-server:7500" $id $full $id $full) -}}
{{- end -}}
{{- join "," $places -}}
{{- end -}}

{{/* Where those are that there must be now. */}}
{{- define "lockstep.wanted" -}}
{{- $full := include "lockstep.fullname" . -}}
{{- $replicas := int .Values.server.replicas -}}
{{- $places := list -}}
{{- range $id := until (int (include "lockstep.members" .)) -}}
{{- $places = append $places (printf "%d=%s-%s-%d.%s-server:7500" $id $full (ternary "server" "witness" (lt $id $replicas)) $id $full) -}}
{{- end -}}
{{- join "," $places -}}
{{- end -}}

{{/* The admin ports of everything. */}}
{{- define "lockstep.admin" -}}
{{- $full := include "lockstep.fullname" . -}}
{{ $full }}-server:9400,{{ $full }}-smart-client:9400,{{ $full }}-ingress:9400
{{- end -}}

{{/* So that commands in any of our containers need no flags. */}}
{{- define "lockstep.env" -}}
- name: LOCKSTEP_ADMIN
  value: {{ include "lockstep.admin" . | quote }}
{{- end -}}

{{- define "lockstep.securityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* What every pod of ours has. Of (list root component tier). */}}
{{- define "lockstep.pod" -}}
{{- $root := index . 0 -}}
{{- $tier := index . 2 -}}
{{- /* Only the Job that fills Secrets speaks to the cluster. */ -}}
automountServiceAccountToken: {{ eq (index . 1) "certificates" }}
# A Service named lockstep would set LOCKSTEP_PORT, which is not meant for anybody here.
enableServiceLinks: false
securityContext:
{{ toYaml (merge (deepCopy $tier.podSecurityContext) (dict "fsGroup" 65532 "fsGroupChangePolicy" "OnRootMismatch")) | indent 2 }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with $tier.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $tier.nodeSelector }}
nodeSelector:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with $tier.tolerations }}
tolerations:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with $tier.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
{{- if .labelSelector }}
  - {{ toYaml . | nindent 4 | trim }}
{{- else }}
  - {{ toYaml (merge (dict "labelSelector" (dict "matchLabels" (include "lockstep.spread" (slice $ 0 2) | fromYaml))) .) | nindent 4 | trim }}
{{- end }}
{{- end }}
{{- end }}
{{- if $tier.affinity }}
affinity:
{{ toYaml $tier.affinity | indent 2 }}
{{- else if and $tier.antiAffinity (ne $tier.antiAffinity "none") }}
affinity:
  podAntiAffinity:
{{- if eq $tier.antiAffinity "hard" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "lockstep.spread" (slice . 0 2) | nindent 12 }}
{{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "lockstep.spread" (slice . 0 2) | nindent 14 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What is kept apart: servers and witnesses count as one kind. */}}
{{- define "lockstep.spread" -}}
{{- if has (index . 1) (list "server" "witness") -}}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
lockstep/member: {{ include "lockstep.fullname" (index . 0) }}
{{- else -}}
{{ include "lockstep.selector" . }}
{{- end -}}
{{- end -}}

{{/* The application's protocol, connections, port, and whether it is supervised. */}}
{{- define "lockstep.protocol" -}}
{{- if .Values.app.image }}{{ .Values.app.protocol }}{{ else }}line{{ end -}}
{{- end -}}
{{- define "lockstep.appPort" -}}
{{- .Values.app.port | default 7001 | int -}}
{{- end -}}
{{- define "lockstep.servicePort" -}}
{{- if .Values.ingress.service.port }}{{ .Values.ingress.service.port | int }}{{ else if .Values.app.image }}{{ include "lockstep.appPort" . }}{{ else }}7000{{ end -}}
{{- end -}}
{{- define "lockstep.supervised" -}}
{{- if not .Values.app.image }}true{{ else if kindIs "bool" .Values.app.supervise }}{{ ternary "true" "" .Values.app.supervise }}{{ else if .Values.app.command }}true{{ end -}}
{{- end -}}

{{/* Arguments of every part. Of (list root role id). */}}
{{- define "lockstep.args" -}}
- --cluster={{ include "lockstep.cluster" . }}
- --pki=/pki
- --certificate-wait=1h
{{- if eq .Values.certificates.mode "certManager" }}
- --trust-bundle=/pki/ca.crt
{{- end }}
{{- end -}}
{{- define "lockstep.partArgs" -}}
- --admin=0.0.0.0:9400
- --drain-timeout={{ .Values.timeouts.drain }}
- --log-format={{ .Values.logging.format }}
{{- with .Values.logging.level }}
- --log={{ . }}
{{- end }}
{{- end -}}
{{- define "lockstep.adapterArgs" -}}
- --protocol={{ include "lockstep.protocol" . }}
{{- with .Values.app.connections }}
- --app-connections={{ . }}
{{- end }}
{{- with .Values.sizes.requestBytes }}
- --request-bytes={{ . }}
{{- end }}
{{- with .Values.sizes.replyBytes }}
- --reply-bytes={{ . }}
{{- end }}
- --request-signatures={{ .Values.signatures.requests }}
- --reply-signatures={{ .Values.signatures.replies }}
{{- end -}}

{{/* The certificate of a part that has one for all its pods. Of (list root role). */}}
{{- define "lockstep.pkiVolume" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
- name: pki
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "lockstep.secrets" $root }}-{{ $role }}-0
          optional: true
          items:
            {{- range $file := list "tls.crt" "tls.key" "ca.crt" "crl.pem" "signing.crt" "signing.key" }}
            - {key: {{ $file }}, path: {{ $role }}/0/{{ $file }}}
            {{- end }}
      {{- include "lockstep.trustSource" $root | nindent 6 }}
{{- end -}}
{{- define "lockstep.trustSource" -}}
{{- if eq .Values.certificates.mode "certManager" -}}
- configMap:
    name: {{ .Values.certificates.certManager.trustBundle.configMap }}
    optional: true
    items:
      - {key: {{ .Values.certificates.certManager.trustBundle.key }}, path: ca.crt}
{{- end -}}
{{- end -}}

{{- define "lockstep.signing" -}}
{{- if or (ne .Values.signatures.requests "off") (ne .Values.signatures.replies "off") }}true{{ end -}}
{{- end -}}

{{/* Bytes of a size (256MiB) or of a quantity (10Gi). */}}
{{- define "lockstep.bytes" -}}
{{- $units := dict "" 1 "k" 1e3 "m" 1e6 "g" 1e9 "t" 1e12 "p" 1e15 "e" 1e18 "ki" 1024 "mi" 1048576 "gi" 1073741824 "ti" 1099511627776 "pi" 1125899906842624 "ei" 1152921504606846976 -}}
{{- $text := lower (toString .) -}}
{{- $number := regexFind "^[0-9.]+" $text -}}
{{- mulf (float64 $number) (float64 (get $units (trimPrefix $number $text | trimSuffix "b"))) | printf "%.0f" -}}
{{- end -}}

{{/* Probes of the parts themselves. */}}
{{- define "lockstep.probes" -}}
livenessProbe:
  httpGet: {path: /livez, port: 9400}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: 9400}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end -}}
