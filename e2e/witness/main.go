// What Kubernetes' own people would say, where the operator's tests have an opinion: programs of theirs print for
// people, so this asks the same libraries, by JSON on standard input, and answers so on standard output.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	questions := map[string]func(*json.Decoder) (any, error){"policies": admitted, "statuses": statuses}
	if len(os.Args) != 2 || questions[os.Args[1]] == nil {
		return fmt.Errorf("usage: %s policies|statuses", os.Args[0])
	}
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	answer, err := questions[os.Args[1]](decoder)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}
