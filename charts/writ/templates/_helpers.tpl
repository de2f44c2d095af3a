{{- define "writ.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters. The longest derived name has 17 more, and a label's value may have 63. */}}
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
