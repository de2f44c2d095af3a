{{- define "writ.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters. A label's value, or the name of a Service, may have 63. The longest of them has 17 more. */}}
{{- define "writ.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "writ.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "writ.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "writ.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "writ.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name says which ServiceAccount is used where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "writ.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "writ.serviceAccountName" . }}
{{- end -}}

{{/* User names of Writ, as a list in CEL. */}}
{{- define "writ.operators" -}}
{{- concat (list (include "writ.username" .)) .Values.admission.operators | toJson -}}
{{- end -}}

{{/* User names with the rights of Writ. */}}
{{- define "writ.exempt" -}}
{{- concat (list (include "writ.username" .)) .Values.admission.operators .Values.admission.exemptUsers | toJson -}}
{{- end -}}

{{/*
True in CEL if a user is exempt: it has one of the names (JSON), and a credential with an ID. An impersonated user has no
such ID, so no right to impersonate makes anybody exempt. Tokens of ServiceAccounts have an ID since Kubernetes 1.30,
except tokens from a Secret. Client certificates have one since 1.32. So on 1.31, the name of a person is enough.
*/}}
{{- define "writ.isExempt" -}}
{{- $hasId := "has(request.userInfo.extra) && \"authentication.kubernetes.io/credential-id\" in request.userInfo.extra" -}}
{{- if semverCompare ">=1.32.0-0" .version -}}
request.userInfo.username in {{ .names }} && {{ $hasId }}
{{- else -}}
request.userInfo.username in {{ .names }} && (!request.userInfo.username.startsWith("system:serviceaccount:") || ({{ $hasId }}))
{{- end -}}
{{- end -}}

{{/* Condition of a policy: the user is neither Writ nor a user of admission.exemptUsers. */}}
{{- define "writ.notExempt" -}}
!({{ include "writ.isExempt" (dict "names" (include "writ.exempt" .) "version" .Capabilities.KubeVersion.Version) }})
{{- end -}}

{{/* Condition of a policy: the user is not Writ. */}}
{{- define "writ.notOperator" -}}
!({{ include "writ.isExempt" (dict "names" (include "writ.operators" .) "version" .Capabilities.KubeVersion.Version) }})
{{- end -}}

{{/* Namespaces of the policies: the served ones. In others, nothing would remove the finalizer. */}}
{{- define "writ.served" -}}
{{- if .Values.watchNamespaces -}}
namespaceSelector:
  matchExpressions:
    - {key: kubernetes.io/metadata.name, operator: In, values: {{ concat .Values.watchNamespaces .Values.admission.namespaces | uniq | toJson }}}
{{- end -}}
{{- end -}}

{{/* Labels of the objects of the release. */}}
{{- define "writ.labels" -}}
app.kubernetes.io/name: {{ include "writ.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: writ
{{- end -}}

{{/* Labels of the objects that exist once per cluster. */}}
{{- define "writ.sharedLabels" -}}
app.kubernetes.io/name: writ
app.kubernetes.io/part-of: writ
{{- end -}}

{{- define "writ.selectorLabels" -}}
app.kubernetes.io/name: {{ include "writ.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: serve
{{- end -}}

{{- define "writ.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "writ.subject" -}}
- {kind: ServiceAccount, name: {{ include "writ.serviceAccountName" . }}, namespace: {{ .Release.Namespace }}}
{{- end -}}

{{/* mutate or validate. */}}
{{- define "writ.stamping" -}}
{{- if ne .Values.admission.stamping "auto" -}}
{{- .Values.admission.stamping -}}
{{- else if or (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") (semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version) -}}
mutate
{{- else -}}
validate
{{- end -}}
{{- end -}}

{{/* Namespaces in which Writ may read Secrets, as JSON. */}}
{{- define "writ.credentialsNamespaces" -}}
{{- if kindIs "invalid" .Values.credentialsNamespaces -}}
{{- .Values.watchNamespaces | toJson -}}
{{- else -}}
{{- .Values.credentialsNamespaces | toJson -}}
{{- end -}}
{{- end -}}

{{/* Output store: a URL or none. */}}
{{- define "writ.outputStore" -}}
{{- if .Values.outputStore -}}
{{- .Values.outputStore -}}
{{- else if .Values.persistence.enabled -}}
file:///var/lib/writ/outputs
{{- else -}}
none
{{- end -}}
{{- end -}}

{{/* Ranges without Machines, as a JSON array: the named ones, and those of Services if the cluster publishes them. */}}
{{- define "writ.refuseCidrs" -}}
{{- $ranges := .Values.serve.refuseCidrs }}
{{- if .Values.serve.refuseServiceCidrs }}
{{- range (lookup "networking.k8s.io/v1" "ServiceCIDR" "" "").items }}
{{- $ranges = concat $ranges .spec.cidrs }}
{{- end }}
{{- end }}
{{- $ranges | uniq | toJson }}
{{- end }}

{{/* Peers of a NetworkPolicy: the ranges of a list, each with a prefix. */}}
{{- define "writ.ipBlocks" -}}
{{- range . }}
- ipBlock: {cidr: {{ if contains "/" . }}{{ . | quote }}{{ else if contains ":" . }}{{ printf "%s/128" . | quote }}{{ else }}{{ printf "%s/32" . | quote }}{{ end }}}
{{- end }}
{{- end }}

{{- define "writ.gatewayName" -}}
{{ include "writ.fullname" . }}-gateway
{{- end -}}

{{- define "writ.gatewayAccountName" -}}
{{- if .Values.gateway.serviceAccount.create -}}
{{- default (include "writ.gatewayName" .) .Values.gateway.serviceAccount.name -}}
{{- else -}}
{{- required "gateway.serviceAccount.name names the ServiceAccount to use if gateway.serviceAccount.create is false" .Values.gateway.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "writ.gatewaySubject" -}}
- {kind: ServiceAccount, name: {{ include "writ.gatewayAccountName" . }}, namespace: {{ .Release.Namespace }}}
{{- end -}}

{{/* Fails if values of the gateway contradict each other, or would widen the rights of its ServiceAccount. */}}
{{- define "writ.checkGateway" -}}
{{- if ne (include "writ.stamping" .) "mutate" -}}
{{- fail "gateway.enabled needs Kubernetes 1.36 or newer (constrained impersonation), and admission.stamping auto or mutate: the API server must write the requester" -}}
{{- end -}}
{{- if eq (include "writ.gatewayAccountName" .) (include "writ.serviceAccountName" .) -}}
{{- fail "gateway.serviceAccount.name must differ from the ServiceAccount of `writ serve`, to which the guards do not apply" -}}
{{- end -}}
{{- if and .Values.gateway.tls.secretName .Values.gateway.behindTlsProxy -}}
{{- fail "set either gateway.tls.secretName or gateway.behindTlsProxy, not both" -}}
{{- end -}}
{{- if not (or .Values.gateway.tls.secretName .Values.gateway.behindTlsProxy) -}}
{{- fail "gateway.tls.secretName must name a Secret with a certificate, or set gateway.behindTlsProxy=true: without TLS the gateway would receive credentials in plain text" -}}
{{- end -}}
{{- if eq (int .Values.gateway.port) (int .Values.operations.port) -}}
{{- fail "gateway.port must differ from operations.port" -}}
{{- end -}}
{{- range $namespace := list "kube-system" .Release.Namespace -}}
{{- if has $namespace $.Values.watchNamespaces -}}
{{- fail (printf "watchNamespaces must not contain %s if gateway.enabled: the gateway may read each Secret of its own namespace, and must not act in that of the control plane" $namespace) -}}
{{- end -}}
{{- if has $namespace $.Values.gateway.callerNamespaces -}}
{{- fail (printf "gateway.callerNamespaces must not contain %s: its ServiceAccounts have the rights of Writ or of the control plane" $namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
