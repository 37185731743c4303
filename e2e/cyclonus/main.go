// Whether traffic is admitted, said by cyclonus' model of network policies and not by our own.
//
// Its own program prints tables for people. This asks the same library, and answers by JSON: on standard input an
// object of policies and traffics, on standard output a verdict for each traffic, in order.
package main

import (
	"encoding/json"
	"log"
	"os"

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

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	var asked question
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		return err
	}
	// Not simplified: that would be one more computation between the policies and the verdicts.
	policy := matcher.BuildNetworkPolicies(false, asked.Policies)
	verdicts := make([]verdict, 0, len(asked.Traffics))
	for _, traffic := range asked.Traffics {
		allowed := policy.IsTrafficAllowed(traffic)
		verdicts = append(verdicts, verdict{Leaves: allowed.Egress.IsAllowed(), Enters: allowed.Ingress.IsAllowed()})
	}
	return json.NewEncoder(os.Stdout).Encode(verdicts)
}
