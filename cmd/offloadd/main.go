// Command offloadd is an OVN chassis.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"os/user"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/daemon"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/pinger"
	"github.com/offloadd/offloadd/pkg/probe/train"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == path.ForwardVerb { // a child of a probe
		fmt.Fprintln(os.Stderr, "offloadd:", path.Forward())
		os.Exit(1)
	}
	if len(os.Args) == 2 && os.Args[1] == engine.Verb { // likewise
		os.Exit(engine.Main(os.Stdin, os.Stdout))
	}
	if len(os.Args) == 2 && os.Args[1] == train.Verb { // likewise
		os.Exit(train.Main(os.Stdin, os.Stdout))
	}
	if len(os.Args) == 2 && os.Args[1] == pinger.Verb {
		os.Exit(pinger.Main(os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "offloadd:", err)
		os.Exit(1)
	}
}

// gcPercent is GOGC if the environment says nothing: most of the heap is the desired state, which lives long, so half as
// much garbage as usual costs a few collections at the start and saves a fifth of the memory for good.
const gcPercent = 50

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// First of all: a signal that nobody waits for would end the process.
	recompute := make(chan os.Signal, 1)
	signal.Notify(recompute, syscall.SIGUSR2)
	defer signal.Stop(recompute)
	config, version, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if version {
		_, err := fmt.Fprintf(stdout, "offloadd %s\nOVN 23.03, SB DB Schema 20.27.0\nOpenFlow versions 0x6:0x6\n", buildVersion())
		return err
	}
	log, err := logger(config, stderr)
	if err != nil {
		return err
	}
	for _, dir := range []string{config.RunDir, config.StateDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	agent, err := daemon.NewAgent(config, chassis.Options{
		Name:      config.ChassisName,
		Hostname:  hostname,
		StartTime: time.Now().UnixMilli(),
		BridgeMAC: randomMAC(),
	}, log)
	if err != nil {
		return err
	}
	control, err := daemon.NewControl(config.Control, agent, "offloadd "+buildVersion(), log)
	if err != nil {
		return err
	}
	devices, deviceTasks, err := daemon.NewDevices(config, log)
	if err != nil {
		return err
	}
	attached, err := ports.New(ports.Options{
		StateDir:    config.StateDir,
		OVSDatabase: config.OVSDatabase,
		Chassis:     agent,
		Devices:     devices,
		Log:         log,
		Fault:       faults(config.StateDir),
	})
	if err != nil {
		return err
	}
	control.ServePorts(attached)
	node, err := daemon.NewNode(agent, build(), "flow.trace", "port.veth", "port.function")
	if err != nil {
		return err
	}
	flows := daemon.NewFlows(agent)
	prober, cleanProbe := daemon.NewProbe(config, "offloadd "+buildVersion(), node, devices, attached, log)
	pairs, pairTasks := daemon.NewMonitor(config, agent, attached, log)
	metricsTasks, err := daemon.ServeMetrics(config, pairs, log)
	if err != nil {
		return err
	}
	server := api.NewServer(attached, node, flows, daemon.NewNICs(config, devices, attached, flows, log), prober, pairs, log)
	agent.ReportHealth(server.SetHealth)
	listener, err := listen(config)
	if err != nil {
		return err
	}
	deviceTasks = append(deviceTasks, daemon.DevicePlugin(config, devices, attached, log)...)
	tasks := append(slices.Concat(agent.Tasks(), deviceTasks, pairTasks, metricsTasks),
		daemon.Task{Name: "control", Run: control.Run},
		daemon.Task{Name: "ports-database", Run: attached.RunDatabase},
		daemon.Task{Name: "ports", Run: attached.Run},
		cleanProbe,
		daemon.PortHealth(attached, server.SetHealth),
		daemon.Task{Name: "api", Run: func(ctx context.Context) error { return server.Serve(ctx, listener) }},
		daemon.Task{Name: "signals", Run: func(ctx context.Context) error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-recompute:
					if err := agent.Recompute(); err != nil {
						return nil // it has ended, and so will everything
					}
				}
			}
		}})
	err = daemon.Run(ctx, log, tasks...)
	if errors.Is(err, daemon.ErrLeft) {
		log.Info("chassis left")
		return nil
	}
	return err
}

// parse reads the command line over the configuration file over the defaults.
func parse(args []string, stderr io.Writer) (config daemon.Config, version bool, err error) {
	config = daemon.DefaultConfig()
	fs := flag.NewFlagSet("offloadd", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintf(stderr, "usage: offloadd [flags] [OVS-DATABASE]\n\nOVS-DATABASE is the remote of the local Open_vSwitch database, by default %s.\n\n", config.OVSDatabase)
		fs.PrintDefaults()
	}
	file := fs.String("config", "", "read the YAML configuration `FILE`")
	listen := fs.String("listen", "", "socket of the gRPC API, `unix:PATH` (default offloadd.sock in the run directory)")
	control := fs.String("control", "", "socket for ovs-appctl, `unix:PATH` (default offloadd.ctl in the run directory)")
	runDir := fs.String("run-dir", "", "`directory` of what lasts until the next boot (default "+config.RunDir+")")
	stateDir := fs.String("state-dir", "", "`directory` of what lasts longer (default "+config.StateDir+")")
	ovsRunDir := fs.String("ovs-run-dir", "", "`directory` of the bridges' management sockets (default that of OVS-DATABASE)")
	logFormat := fs.String("log-format", "", "`text or json` (default "+config.LogFormat+")")
	logLevel := fs.String("log-level", "", "`debug, info, warn or error` (default "+config.LogLevel+")")
	name := fs.String("n", "", "chassis `NAME`, instead of external_ids:system-id")
	privateKey := fs.String("private-key", "", "`FILE` with the private key for ssl remotes of the Southbound")
	certificate := fs.String("certificate", "", "`FILE` with its certificate")
	caCert := fs.String("ca-cert", "", "`FILE` with the certificates of those who may sign the server's")
	offload := fs.String("offload", "", "`direct, delegated or off`: put the pipeline into TC filters, on devices that can offload them, or leave that to Open vSwitch (default "+config.Offload+")")
	tcSoftware := fs.Bool("tc-software", false, "put it on all devices, for tests: in software it is no gain")
	fs.BoolVar(&version, "version", false, "print the version and exit")
	if err := fs.Parse(args); err != nil {
		return config, false, err
	}
	if fs.NArg() > 1 {
		return config, false, fmt.Errorf("unexpected argument %q", fs.Arg(1))
	}
	if *file != "" {
		if config, err = daemon.ReadConfig(*file, config); err != nil {
			return config, false, err
		}
	}
	for _, o := range []struct {
		to   *string
		from string
	}{
		{&config.OVSDatabase, fs.Arg(0)},
		{&config.Listen, *listen},
		{&config.Control, *control},
		{&config.RunDir, *runDir},
		{&config.StateDir, *stateDir},
		{&config.OVSRunDir, *ovsRunDir},
		{&config.LogFormat, *logFormat},
		{&config.LogLevel, *logLevel},
		{&config.ChassisName, *name},
		{&config.Offload, *offload},
		{&config.TLS.PrivateKey, *privateKey},
		{&config.TLS.Certificate, *certificate},
		{&config.TLS.CACertificate, *caCert},
	} {
		if o.from != "" {
			*o.to = o.from
		}
	}
	config.TCSoftware = config.TCSoftware || *tcSoftware
	config, err = config.Check()
	return config, version, err
}

func logger(c daemon.Config, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return nil, err
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), nil
}

// listen opens the socket of the API.
func listen(config daemon.Config) (net.Listener, error) {
	gid := -1
	if name := config.ListenGroup; name != "" {
		group, err := user.LookupGroup(name)
		if err != nil {
			return nil, fmt.Errorf("listen_group: %w", err)
		}
		if gid, err = strconv.Atoi(group.Gid); err != nil {
			return nil, fmt.Errorf("listen_group %s: %w", name, err)
		}
	}
	return api.Listen(strings.TrimPrefix(config.Listen, "unix:"), gid)
}

// randomMAC returns a locally administered unicast address.
func randomMAC() string {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // never fails
	mac[0] = mac[0]&0xfc | 0x02
	return mac.String()
}

func build() daemon.Build {
	b := daemon.Build{Version: buildVersion()}
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			if s.Key == "vcs.revision" {
				b.Commit = s.Value
			}
		}
	}
	return b
}

func buildVersion() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "(devel)"
}
