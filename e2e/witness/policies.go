package main

import (
	"encoding/json"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	networking "k8s.io/api/networking/v1"
)

type question struct {
	Policies []*networking.NetworkPolicy `json:"policies"`
	Traffics []*matcher.Traffic          `json:"traffics"`
}

// Either end can forbid it.
type verdict struct {
	Leaves bool `json:"leaves"`
	Enters bool `json:"enters"`
}

// Whether each traffic is admitted by the policies, as cyclonus models them: a verdict for each, in order.
func admitted(decoder *json.Decoder) (any, error) {
	var asked question
	if err := decoder.Decode(&asked); err != nil {
		return nil, err
	}
	// Not simplified: that would be one more computation between the policies and the verdicts.
	policy := matcher.BuildNetworkPolicies(false, asked.Policies)
	verdicts := make([]verdict, 0, len(asked.Traffics))
	for _, traffic := range asked.Traffics {
		allowed := policy.IsTrafficAllowed(traffic)
		verdicts = append(verdicts, verdict{Leaves: allowed.Egress.IsAllowed(), Enters: allowed.Ingress.IsAllowed()})
	}
	return verdicts, nil
}
