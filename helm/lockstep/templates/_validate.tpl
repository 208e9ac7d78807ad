{{/* What a schema cannot say. Every sentence names what to change. */}}
{{- define "lockstep.validate" -}}
{{- $v := .Values -}}
{{- $members := int (include "lockstep.members" .) -}}
{{- $full := include "lockstep.fullname" . -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $full) -}}
{{- fail (printf "\"%s\" cannot be the name of a Service (lower-case letters, digits and -, a letter first): choose another release name, or set fullnameOverride" $full) -}}
{{- end -}}
{{- range $where, $labels := dict "commonLabels" $v.commonLabels "server.podLabels" $v.server.podLabels "smartClient.podLabels" $v.smartClient.podLabels "ingress.podLabels" $v.ingress.podLabels "jobs.podLabels" $v.jobs.podLabels -}}
{{- range $key, $value := $labels -}}
{{- if or (has $key (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/part-of" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" "lockstep/member")) (and (ne $where "commonLabels") (hasKey $v.commonLabels $key)) -}}
{{- fail (printf "%s: the label %s is set by the chart already; choose another key" $where $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key := list "persistence" "storage" "volumeClaimTemplates" -}}
{{- if hasKey $v.app $key -}}
{{- fail (printf "app.%s: the application has no volume that lasts. Its state is the log and the snapshots, which the sidecar keeps: their volume is server.persistence. It must start empty" $key) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (mod $members 2) 0) (not $v.server.allowEven) -}}
{{- fail (printf "server.replicas + server.witnesses is %d: an even number survives no more losses than one less. Use an odd number, or set server.allowEven=true" $members) -}}
{{- end -}}
{{- if gt $members 15 -}}
{{- fail (printf "server.replicas + server.witnesses is %d: at most 15 members are possible" $members) -}}
{{- end -}}
{{- if and (gt (int $v.server.witnesses) 0) (lt (int $v.server.replicas) (int $v.server.witnesses)) -}}
{{- fail "server.witnesses is greater than server.replicas: most members must have an application" -}}
{{- end -}}
{{- if $v.app.image -}}
{{- if not $v.app.protocol -}}
{{- fail "app.protocol is missing: say what the application speaks (line, close, length, http or resp)" -}}
{{- end -}}
{{- if not $v.app.port -}}
{{- fail (printf "app.port is missing: on which port of its pod does the application listen? app.protocol=%s alone does not say" $v.app.protocol) -}}
{{- end -}}
{{- else if or $v.app.protocol $v.app.command $v.app.args -}}
{{- fail "app.image is missing: app.protocol, app.command and app.args are of an application of your own; without an image the example hashmap runs" -}}
{{- else if or (kindIs "bool" $v.app.supervise) $v.app.securityContext $v.app.connections $v.app.reset.request $v.app.reset.emptyRequest $v.snapshot.dumpRequest $v.snapshot.loadRequest -}}
{{- fail "app.image is missing: app.supervise, app.securityContext, app.connections, app.reset and the snapshot requests are of an application of your own; the example hashmap has its own" -}}
{{- end -}}
{{- if or (and (eq $v.app.protocol "close") (has $v.app.connections (list "shared" "per-session"))) (and (eq $v.app.protocol "http") (eq $v.app.connections "per-session")) -}}
{{- fail (printf "app.connections=%s does not go with app.protocol=%s: leave it empty, or use per-request" $v.app.connections $v.app.protocol) -}}
{{- end -}}
{{- if has (int (include "lockstep.appPort" .)) (list 7500 9400) -}}
{{- fail (printf "app.port %d is taken: the sidecar in the same pod uses 7500 and 9400" (int $v.app.port)) -}}
{{- end -}}
{{- if and $v.app.image (kindIs "bool" $v.app.supervise) $v.app.supervise (not $v.app.command) -}}
{{- fail "app.supervise needs app.command: `lockstep exec` starts the application, and cannot know the image's entry point" -}}
{{- end -}}
{{- range $mount := $v.app.volumeMounts -}}
{{- if not $mount.readOnly -}}
{{- if not (or $v.app.reset.request (eq $v.app.protocol "resp")) -}}
{{- fail (printf "app.volumeMounts: %s is writable. What outlives the application's process would be replayed on top of: mount it readOnly, or name app.reset.request, which empties it" $mount.mountPath) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.app.reset.emptyRequest (not $v.app.reset.emptyReply) -}}
{{- fail "app.reset.emptyReply is missing: it goes with app.reset.emptyRequest" -}}
{{- end -}}
{{- if and $v.app.reset.emptyReply (not $v.app.reset.emptyRequest) -}}
{{- fail "app.reset.emptyRequest is missing: it goes with app.reset.emptyReply" -}}
{{- end -}}
{{- if eq $v.snapshot.mode "directory" -}}
{{- fail "snapshot.mode=directory is not possible here: the sidecar runs in another container than the application and sees no files of it. Use request or command" -}}
{{- end -}}
{{- $builtin := or (not $v.app.image) (eq $v.app.protocol "resp") -}}
{{- if and (eq $v.snapshot.mode "request") (not $builtin) (not (and $v.snapshot.dumpRequest $v.snapshot.loadRequest)) -}}
{{- fail (printf "snapshot.mode=request: nothing is built in for %s, so name snapshot.dumpRequest and snapshot.loadRequest" $v.app.protocol) -}}
{{- end -}}
{{- if and (eq $v.snapshot.mode "command") (not (and $v.snapshot.dumpCommand $v.snapshot.loadCommand)) -}}
{{- fail "snapshot.mode=command: name snapshot.dumpCommand and snapshot.loadCommand" -}}
{{- end -}}
{{- if and (or $v.snapshot.dumpRequest $v.snapshot.loadRequest) (ne $v.snapshot.mode "request") -}}
{{- fail "snapshot.dumpRequest and snapshot.loadRequest go with snapshot.mode=request" -}}
{{- end -}}
{{- if ne (empty $v.snapshot.dumpRequest) (empty $v.snapshot.loadRequest) -}}
{{- fail "snapshot.dumpRequest and snapshot.loadRequest go together: one asks for the state, the other brings it back" -}}
{{- end -}}
{{- if and $v.backup.enabled (or (eq $v.snapshot.mode "none") (and (eq $v.snapshot.mode "") (not $builtin))) -}}
{{- fail "backup.enabled: a backup is a snapshot, and none are taken here. Choose a snapshot.mode" -}}
{{- end -}}
{{- if and (or $v.snapshot.dumpCommand $v.snapshot.loadCommand) (ne $v.snapshot.mode "command") -}}
{{- fail "snapshot.dumpCommand and snapshot.loadCommand go with snapshot.mode=command" -}}
{{- end -}}
{{- if le (int (trimSuffix "s" $v.timeouts.deadline)) (mul 2 (int (trimSuffix "s" $v.timeouts.app))) -}}
{{- fail (printf "timeouts.app=%s must be less than half of timeouts.deadline=%s: whoever asked must still be there when a request is given up" $v.timeouts.app $v.timeouts.deadline) -}}
{{- end -}}
{{- $c := $v.certificates -}}
{{- if and (ne $c.mode "existingSecrets") $c.existingSecrets.prefix -}}
{{- fail (printf "two certificate modes at once: certificates.mode=%s, and certificates.existingSecrets.prefix is set. Choose one" $c.mode) -}}
{{- end -}}
{{- if and (ne $c.mode "certManager") $c.certManager.issuerRef.name -}}
{{- fail (printf "two certificate modes at once: certificates.mode=%s, and certificates.certManager.issuerRef.name is set. Choose one" $c.mode) -}}
{{- end -}}
{{- if eq $c.mode "certManager" -}}
{{- if not (and $c.certManager.issuerRef.name $c.certManager.trustBundle.configMap) -}}
{{- fail "certificates.mode=certManager needs certManager.issuerRef.name, and certManager.trustBundle.configMap: whom the parts trust" -}}
{{- end -}}
{{- if include "lockstep.signing" . -}}
{{- fail "signatures need signing certificates, which cert-manager does not make: use certificates.mode inCluster or existingSecrets, or signatures off" -}}
{{- end -}}
{{- end -}}
{{- if and (ne $c.mode "inCluster") (or $c.revoked $c.clients (gt (int $c.authority) 1) (gt (int $c.renewal) 0)) -}}
{{- fail (printf "certificates.authority, renewal, revoked and clients go with certificates.mode=inCluster, and the mode is %s" $c.mode) -}}
{{- end -}}
{{- if and $v.ingress.service.nodePort (eq $v.ingress.service.type "ClusterIP") -}}
{{- fail "ingress.service.nodePort is set, and ingress.service.type is ClusterIP: use NodePort or LoadBalancer" -}}
{{- end -}}
{{- if and (ne $v.ingress.service.type "LoadBalancer") (or $v.ingress.service.loadBalancerClass $v.ingress.service.loadBalancerSourceRanges) -}}
{{- fail "ingress.service.loadBalancerClass and loadBalancerSourceRanges need ingress.service.type=LoadBalancer" -}}
{{- end -}}
{{- if and $v.ingress.service.externalTrafficPolicy (eq $v.ingress.service.type "ClusterIP") -}}
{{- fail "ingress.service.externalTrafficPolicy needs ingress.service.type NodePort or LoadBalancer" -}}
{{- end -}}
{{- range $name := list "smartClient" "ingress" -}}
{{- $tier := index $v $name -}}
{{- if and $tier.autoscaling.enabled (gt (int $tier.autoscaling.minReplicas) (int $tier.autoscaling.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling.minReplicas is greater than maxReplicas" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "smartClient" "ingress" -}}
{{- $tier := index $v $name -}}
{{- if and $tier.autoscaling.enabled (not (dig "requests" "cpu" "" $tier.resources)) -}}
{{- fail (printf "%s.autoscaling counts in parts of resources.requests.cpu, which %s.resources does not have" $name $name) -}}
{{- end -}}
{{- end -}}
{{- if has (int $v.ingress.port) (list 9400) -}}
{{- fail "ingress.port 9400 is taken: probes and metrics are there. The port that clients use is ingress.service.port" -}}
{{- end -}}
{{- if and (not $v.networkPolicy.enabled) (or $v.networkPolicy.clientsFrom $v.networkPolicy.nativeClientsFrom $v.networkPolicy.adminFrom) -}}
{{- fail "networkPolicy.clientsFrom, nativeClientsFrom and adminFrom need networkPolicy.enabled: without it everybody may connect" -}}
{{- end -}}
{{- range $label := splitList "." (include "lockstep.cluster" .) -}}
{{- if not (regexMatch "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" $label) -}}
{{- fail (printf "cluster.name %s: \"%s\" is no DNS label (lower-case letters, digits and -)" (include "lockstep.cluster" $) $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
