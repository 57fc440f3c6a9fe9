// Package openslo holds the seven kinds of OpenSLO v1 with the rules of its
// specification (github.com/OpenSLO/OpenSLO, README of September 2025), and what
// of them a service level of ours can say.
//
// The types say what must be there; what may be left out is a pointer, a list or
// empty text, so that a document comes back as it was written. Package manifest
// reads and writes them. Where the specification and its own examples differ,
// the examples are accepted: an SLO may leave out budgetingMethod (Occurrences
// then), an objective of a ratio may have an op that means nothing, a name may
// have capitals, and an optional field may be there without a value.
package openslo

import (
	"slices"

	"consort.dev/consort/estate"
)

// APIVersion is the version that is read and written.
const APIVersion = "openslo/v1"

// Object is a document of any kind.
type Object interface {
	// Header returns the head for reading and writing.
	Header() *Head
	// Check returns what is wrong, each problem at its field.
	Check() []estate.Problem
}

// Head is what every document begins with.
type Head struct {
	APIVersion string   `json:"apiVersion" enum:"openslo/v1"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`
}

// Header returns the head itself.
func (h *Head) Header() *Head { return h }

// Metadata is who a document is.
type Metadata struct {
	Name        string            `json:"name"`
	DisplayName string            `json:"displayName,omitempty"`
	Labels      map[string]Texts  `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Texts is one text or several; one is written without a list.
type Texts []string

// Free is any YAML: text, numbers, true and false, nil, []any and map[string]any
// of them.
type Free map[string]any

// Kinds returns an empty document of each kind.
func Kinds() []Object {
	return []Object{
		&DataSource{Head: head("DataSource")}, &Service{Head: head("Service")}, &SLI{Head: head("SLI")}, &SLO{Head: head("SLO")},
		&AlertPolicy{Head: head("AlertPolicy")}, &AlertCondition{Head: head("AlertCondition")},
		&AlertNotificationTarget{Head: head("AlertNotificationTarget")},
	}
}

func head(kind string) Head { return Head{APIVersion: APIVersion, Kind: kind} }

// New returns an empty document of the kind, or nil.
func New(kind string) Object {
	all := Kinds()
	if i := slices.IndexFunc(all, func(o Object) bool { return o.Header().Kind == kind }); i >= 0 {
		return all[i]
	}
	return nil
}

// DataSource is how a metrics server is reached.
type DataSource struct {
	Head
	Spec DataSourceSpec `json:"spec"`
}

// DataSourceSpec is a kind of server and whatever reaching it takes.
type DataSourceSpec struct {
	Description       string `json:"description,omitempty"`
	Type              string `json:"type" doc:"Say what kind of server it is, as type: Prometheus."`
	ConnectionDetails Free   `json:"connectionDetails" doc:"Say how it is reached, or write connectionDetails: {}."`
}

// Service groups SLOs.
type Service struct {
	Head
	Spec ServiceSpec `json:"spec,omitempty"`
}

// ServiceSpec describes a service.
type ServiceSpec struct {
	Description string `json:"description,omitempty"`
}

// SLI is how good and bad are measured.
type SLI struct {
	Head
	Spec SLISpec `json:"spec"`
}

// SLISpec is either a value that is compared or a ratio.
type SLISpec struct {
	Description     string  `json:"description,omitempty"`
	ThresholdMetric *Metric `json:"thresholdMetric,omitempty"`
	RatioMetric     *Ratio  `json:"ratioMetric,omitempty"`
}

// Metric is one thing that is measured.
type Metric struct {
	MetricSource MetricSource `json:"metricSource"`
}

// MetricSource says who is asked what.
type MetricSource struct {
	MetricSourceRef string `json:"metricSourceRef,omitempty"`
	Type            string `json:"type,omitempty"`
	Spec            Free   `json:"spec" doc:"Say what to ask, as spec: {query: up}."`
}

// Ratio is good or bad of total, or a ratio that somebody worked out before.
type Ratio struct {
	Counter *bool   `json:"counter,omitempty"`
	Good    *Metric `json:"good,omitempty"`
	Bad     *Metric `json:"bad,omitempty"`
	Total   *Metric `json:"total,omitempty"`
	RawType string  `json:"rawType,omitempty" enum:"success,failure"`
	Raw     *Metric `json:"raw,omitempty"`
}

// SLO is a target for what an SLI measures.
type SLO struct {
	Head
	Spec SLOSpec `json:"spec"`
}

// SLOSpec is the objectives and the time over which they hold.
type SLOSpec struct {
	Description     string         `json:"description,omitempty"`
	Service         string         `json:"service" doc:"Name the service whose SLO this is."`
	Indicator       *Indicator     `json:"indicator,omitempty"`
	IndicatorRef    string         `json:"indicatorRef,omitempty"`
	TimeWindow      []TimeWindow   `json:"timeWindow,omitempty"`
	BudgetingMethod string         `json:"budgetingMethod,omitempty" enum:"Occurrences,Timeslices,RatioTimeslices"`
	Objectives      []Objective    `json:"objectives" doc:"Give at least one, as - target: 0.99."`
	AlertPolicies   []InlinePolicy `json:"alertPolicies,omitempty"`
}

// Indicator is an SLI inside an SLO.
type Indicator struct {
	APIVersion string   `json:"apiVersion,omitempty" enum:"openslo/v1"`
	Kind       string   `json:"kind,omitempty" enum:"SLI"`
	Metadata   Metadata `json:"metadata"`
	Spec       SLISpec  `json:"spec"`
}

// TimeWindow is the time over which objectives hold.
type TimeWindow struct {
	Duration  Length    `json:"duration" doc:"Write how long the window is, as 4w."`
	IsRolling *bool     `json:"isRolling,omitempty"`
	Calendar  *Calendar `json:"calendar,omitempty"`
}

// Calendar is when windows begin.
type Calendar struct {
	StartTime string `json:"startTime" doc:"Write it as 2020-01-21 12:30:00."`
	TimeZone  string `json:"timeZone" doc:"Write it as America/New_York."`
}

// Objective is one target.
type Objective struct {
	DisplayName     string     `json:"displayName,omitempty"`
	Op              string     `json:"op,omitempty" enum:"lte,gte,lt,gt"`
	Value           *float64   `json:"value,omitempty"`
	Target          *float64   `json:"target,omitempty"`
	TargetPercent   *float64   `json:"targetPercent,omitempty"`
	TimeSliceTarget *float64   `json:"timeSliceTarget,omitempty"`
	TimeSliceWindow Length     `json:"timeSliceWindow,omitempty"`
	Indicator       *Indicator `json:"indicator,omitempty"`
	IndicatorRef    string     `json:"indicatorRef,omitempty"`
	CompositeWeight *float64   `json:"compositeWeight,omitempty"`
}

// AlertPolicy says when somebody is told, and who.
type AlertPolicy struct {
	Head
	Spec AlertPolicySpec `json:"spec"`
}

// AlertPolicySpec is one condition and its targets.
type AlertPolicySpec struct {
	Description         string            `json:"description,omitempty"`
	AlertWhenNoData     *bool             `json:"alertWhenNoData,omitempty"`
	AlertWhenResolved   *bool             `json:"alertWhenResolved,omitempty"`
	AlertWhenBreaching  *bool             `json:"alertWhenBreaching,omitempty"`
	Conditions          []InlineCondition `json:"conditions" doc:"Give one, as - conditionRef: fast-burn."`
	NotificationTargets []InlineTarget    `json:"notificationTargets" doc:"Give at least one, as - targetRef: on-call."`
}

// InlinePolicy is an alert policy inside an SLO, or the name of one.
type InlinePolicy struct {
	AlertPolicyRef string           `json:"alertPolicyRef,omitempty"`
	APIVersion     string           `json:"apiVersion,omitempty" enum:"openslo/v1"`
	Kind           string           `json:"kind,omitempty" enum:"AlertPolicy"`
	Metadata       *Metadata        `json:"metadata,omitempty"`
	Spec           *AlertPolicySpec `json:"spec,omitempty"`
}

// InlineCondition is a condition inside a policy, or the name of one.
type InlineCondition struct {
	ConditionRef string              `json:"conditionRef,omitempty"`
	APIVersion   string              `json:"apiVersion,omitempty" enum:"openslo/v1"`
	Kind         string              `json:"kind,omitempty" enum:"AlertCondition"`
	Metadata     *Metadata           `json:"metadata,omitempty"`
	Spec         *AlertConditionSpec `json:"spec,omitempty"`
}

// InlineTarget is a notification target inside a policy, or the name of one.
type InlineTarget struct {
	TargetRef  string      `json:"targetRef,omitempty"`
	APIVersion string      `json:"apiVersion,omitempty" enum:"openslo/v1"`
	Kind       string      `json:"kind,omitempty" enum:"AlertNotificationTarget"`
	Metadata   *Metadata   `json:"metadata,omitempty"`
	Spec       *TargetSpec `json:"spec,omitempty"`
}

// AlertCondition says when an alert begins.
type AlertCondition struct {
	Head
	Spec AlertConditionSpec `json:"spec"`
}

// AlertConditionSpec is a condition and how bad it is.
type AlertConditionSpec struct {
	Description string    `json:"description,omitempty"`
	Severity    string    `json:"severity" doc:"Write how bad it is, as severity: page."`
	Condition   Condition `json:"condition"`
}

// Condition compares a burn rate.
type Condition struct {
	Kind           string   `json:"kind,omitempty" enum:"burnrate"`
	Op             string   `json:"op" enum:"lte,gte,lt,gt"`
	Threshold      *float64 `json:"threshold" doc:"Write the burn rate that is too much, as threshold: 14.4."`
	LookbackWindow Length   `json:"lookbackWindow" doc:"Write over what time the rate is taken, as 1h."`
	AlertAfter     Length   `json:"alertAfter,omitempty"`
}

// AlertNotificationTarget is somebody who is told.
type AlertNotificationTarget struct {
	Head
	Spec TargetSpec `json:"spec"`
}

// TargetSpec is how somebody is told.
type TargetSpec struct {
	Description string `json:"description,omitempty"`
	Target      string `json:"target" doc:"Write how they are told, as target: email."`
}
