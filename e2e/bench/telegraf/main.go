// Telegraf with the plugins that the bench uses, and no others.
//
// Its own program is a main package, which nothing can import, and it has every plugin compiled in.
// This does what it does between the command line and the agent: load the files, set the log up, run
// until it is told to stop. The agent and the plugins are Telegraf's own, unchanged.
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/influxdata/telegraf/agent"
	"github.com/influxdata/telegraf/config"
	"github.com/influxdata/telegraf/logger"

	_ "github.com/influxdata/telegraf/plugins/inputs/mqtt_consumer"
	_ "github.com/influxdata/telegraf/plugins/outputs/influxdb_v2"
	_ "github.com/influxdata/telegraf/plugins/parsers/influx"
	_ "github.com/influxdata/telegraf/plugins/parsers/json_v2"
	_ "github.com/influxdata/telegraf/plugins/parsers/value"
)

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatalf("E! %v", err)
	}
}

func run(files []string) error {
	if len(files) == 0 {
		return errors.New("usage: telegraf CONFIG...")
	}
	loaded := config.NewConfig()
	if err := loaded.LoadAll(files...); err != nil {
		return err
	}
	if err := logger.SetupLogging(&logger.Config{Quiet: loaded.Agent.Quiet, LogTarget: "stderr"}); err != nil {
		return err
	}
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	return agent.NewAgent(loaded).Run(stop)
}
