package main

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// What kstatus, by which Flux and Helm wait, makes of each object, in order.
func statuses(decoder *json.Decoder) (any, error) {
	var objects []unstructured.Unstructured
	if err := decoder.Decode(&objects); err != nil {
		return nil, err
	}
	found := make([]status.Status, 0, len(objects))
	for index := range objects {
		computed, err := status.Compute(&objects[index])
		if err != nil {
			return nil, err
		}
		found = append(found, computed.Status)
	}
	return found, nil
}
