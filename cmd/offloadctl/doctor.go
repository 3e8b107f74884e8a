package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/tc"
)

// defaultDatabase is where Open vSwitch has its database.
const defaultDatabase = "unix:/run/openvswitch/db.sock"

// A diagnosis is what doctor has found out. Findings of Open vSwitch and of the node have capabilities of their own.
type diagnosis struct {
	kernel, ovs    string // versions, if they are known
	device, driver string
	findings       []tc.Finding
	err            error // of the probe of the kernel
}

func (c *cli) doctorCommand() *cobra.Command {
	var device, database string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "find out what kernel, Open vSwitch and a device can do for offload; it needs no daemon",
		Long: `doctor tries in a network namespace of its own what the filters of offloadd need of the kernel, reads how Open vSwitch is configured,
and says of each gap what it costs and what fixes it. It needs root. The exit code is 1 if something is missing without which
there are no filters.

With --device it also adds filters to a device, for the hardware alone, and removes them again. No packet meets them.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
			defer cancel()
			d := examine(ctx, database)
			if device != "" {
				if _, err := net.InterfaceByName(device); err != nil {
					return notFound{fmt.Errorf("doctor: device %s: %w", device, err)}
				}
				found, err := tc.ProbeDevice(ctx, device)
				if err != nil {
					return &reason.Error{Reason: reason.Of(err), Err: err}
				}
				d.device, d.driver = device, found.Driver
				d.findings = append(d.findings, found.Findings...)
			}
			return c.tell(d)
		},
	}
	cmd.Flags().StringVar(&device, "device", "", "also try what the hardware of a device can do, by `name`")
	cmd.Flags().StringVar(&database, "database", defaultDatabase, "`remote` of the Open_vSwitch database")
	return cmd
}

// examine looks at kernel, Open vSwitch and node.
func examine(ctx context.Context, database string) diagnosis {
	var d diagnosis
	caps, err := tc.Probe(ctx)
	d.kernel, d.findings, d.err = caps.Release, caps.Findings, err
	if err != nil {
		for i := range tc.Capabilities {
			d.findings = append(d.findings, tc.Finding{Capability: &tc.Capabilities[i], Words: err.Error()})
		}
	}
	sw, err := readSwitch(ctx, database)
	d.ovs = sw.version
	d.findings = append(d.findings, sw.findings(err)...)
	d.findings = append(d.findings, representors("/sys/class/net"))
	return d
}

// Capabilities of the node besides those of its kernel.
var (
	checkDatabase = tc.Capability{
		Name: "ovs.database", What: "Open vSwitch's database answers", Vital: true, Cost: "offloadd waits for it, and does nothing.",
		Fix: "Start Open vSwitch, or say where its database is: ovs_database in the daemon's configuration, --database here.",
	}
	checkBridge = tc.Capability{
		Name: "ovs.bridge", What: "there is an integration bridge", Needs: "ovs.database", Vital: true, Cost: "offloadd makes one as soon as it is configured.",
		Fix: "Start offloadd.",
	}
	checkDatapath = tc.Capability{
		Name: "ovs.datapath", What: "the integration bridge has the kernel datapath", Needs: "ovs.bridge", Vital: true,
		Cost: "There are no filters: the userspace datapath takes packets before TC does.", Fix: "ovs-vsctl set bridge br-int datapath_type=system",
	}
	checkHWOffload = tc.Capability{
		Name: "ovs.hw-offload", What: "Open vSwitch does not offload by itself", Needs: "ovs.database", Vital: true,
		Cost: "There are no filters of offloadd: two cannot decide about the same packets.",
		Fix:  "ovs-vsctl remove open . other_config hw-offload, and restart Open vSwitch.",
	}
	checkRepresentors = tc.Capability{
		Name: "node.representors", What: "there are ports of an embedded switch", Cost: "There is nothing to offload to; with tc_software filters are in software alone.",
		Fix: "Put a NIC that can do it in switchdev mode: devlink dev eswitch set pci/... mode switchdev.",
	}
)

// A vswitch is what Open vSwitch's database says that concerns offload.
type vswitch struct {
	version       string
	bridge        string // name of the integration bridge
	exists        bool
	userspace, hw bool
}

// findings judges a vswitch, or why there is none.
func (s vswitch) findings(err error) []tc.Finding {
	if err != nil {
		return []tc.Finding{{Capability: &checkDatabase, Answer: tc.No, Words: err.Error()}}
	}
	judge := func(c *tc.Capability, ok bool, words string) tc.Finding {
		if ok {
			return tc.Finding{Capability: c, Answer: tc.Yes}
		}
		return tc.Finding{Capability: c, Answer: tc.No, Words: words}
	}
	fs := []tc.Finding{judge(&checkDatabase, true, ""), judge(&checkBridge, s.exists, "there is no bridge "+s.bridge)}
	if s.exists {
		fs = append(fs, judge(&checkDatapath, !s.userspace, "datapath_type of "+s.bridge+" is netdev"))
	}
	return append(fs, judge(&checkHWOffload, !s.hw, "other_config:hw-offload is true"))
}

const (
	defaultBridge = "br-int"
	// databaseTimeout is how long the database may take. It is on this node.
	databaseTimeout = 3 * time.Second
)

// readSwitch reads the database once.
func readSwitch(ctx context.Context, remote string) (s vswitch, err error) {
	if path, ok := strings.CutPrefix(remote, "unix:"); ok { // the client would try again and again
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err != nil {
			return s, err
		}
		_ = conn.Close()
	}
	client, err := ovsdb.New(ovsdb.Config{
		Database: "Open_vSwitch", Remotes: []string{remote},
		Tables: []ovsdb.Table{
			{Name: vswitchdb.OpenvSwitchTable, Row: vswitchdb.OpenvSwitch{}, Columns: []string{"external_ids", "other_config", "ovs_version"}},
			{Name: vswitchdb.BridgeTable, Row: vswitchdb.Bridge{}, Columns: []string{"name", "datapath_type"}},
		},
	})
	if err != nil {
		return s, err
	}
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	ended := make(chan struct{})
	go func() { // ends with ctx
		_ = client.Run(ctx)
		close(ended)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	var bridges []*vswitchdb.Bridge
	s.bridge = defaultBridge
	for {
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("ovsdb %s: no answer: %w", remote, context.Cause(ctx))
		case u := <-client.Updates():
			for _, c := range u.Changes {
				switch row := c.New.(type) {
				case *vswitchdb.OpenvSwitch:
					s.hw = row.OtherConfig["hw-offload"] == "true"
					s.bridge = cmp.Or(row.ExternalIDs["ovn-bridge"], s.bridge)
					if row.OVSVersion != nil {
						s.version = *row.OVSVersion
					}
				case *vswitchdb.Bridge:
					bridges = append(bridges, row)
				}
			}
			if !u.Synced {
				continue
			}
			if i := slices.IndexFunc(bridges, func(b *vswitchdb.Bridge) bool { return b.Name == s.bridge }); i >= 0 {
				s.exists, s.userspace = true, bridges[i].DatapathType == "netdev"
			}
			return s, nil
		}
	}
}

// representors looks for ports of embedded switches among the devices in dir.
func representors(dir string) tc.Finding {
	ids, _ := filepath.Glob(filepath.Join(dir, "*", "phys_switch_id")) // its only error is that of a bad pattern
	for _, path := range ids {
		if id, err := os.ReadFile(path); err == nil && len(strings.TrimSpace(string(id))) > 0 {
			return tc.Finding{Capability: &checkRepresentors, Answer: tc.Yes}
		}
	}
	return tc.Finding{Capability: &checkRepresentors, Answer: tc.No, Words: "no device has a phys_switch_id"}
}

// tell prints a diagnosis. The error says whether it is a good one.
func (c *cli) tell(d diagnosis) error {
	if c.structured() {
		if err := c.tellPrograms(d); err != nil {
			return err
		}
	} else {
		c.tellPeople(d)
	}
	switch {
	case errors.Is(d.err, unix.EPERM):
		return &reason.Error{Reason: reason.PermissionDenied, Err: d.err}
	case d.err != nil:
		return errNegative
	}
	for _, f := range d.findings {
		if f.Vital && f.Answer == tc.No {
			return errNegative
		}
	}
	return nil
}

func (c *cli) tellPrograms(d diagnosis) error {
	checks := make([]any, 0, len(d.findings))
	for _, f := range d.findings {
		checks = append(checks, map[string]any{
			"name": f.Name, "state": f.Answer.String(), "what": f.What, "since": f.Since, "vital": f.Vital, "words": strings.ToValidUTF8(f.Words, "?"),
			"cost": f.Cost, "fix": f.Fix,
		})
	}
	m, err := structpb.NewStruct(map[string]any{"kernel": d.kernel, "ovs": d.ovs, "device": d.device, "driver": d.driver, "checks": checks})
	if err != nil {
		return fmt.Errorf("json: %w", err)
	}
	return c.print("Diagnosis", m)
}

func (c *cli) tellPeople(d diagnosis) {
	s := &sheet{c: c}
	s.add("Kernel", d.kernel)
	s.add("Open vSwitch", d.ovs)
	s.add("Device", d.device)
	s.add("Driver", d.driver)
	s.print()
	fmt.Fprintln(c.stdout)
	t := table{c: c}
	if !c.noHeaders {
		t.heading = []cell{{text: "CHECK"}, {text: "STATE"}, {text: "WHAT"}}
	}
	no := map[string]bool{}
	for _, f := range d.findings {
		no[f.Name] = f.Answer == tc.No
		t.add([]cell{{text: f.Name}, {f.Answer.String(), styleOf(f)}, {text: f.What}})
	}
	t.flush()
	said := map[string]bool{}
	for _, f := range d.findings {
		// The words for what is missing for want of something else, and those that have been said, say nothing new.
		if f.Answer == tc.Yes || no[f.Needs] || f.Answer == tc.Unknown && said[f.Words] {
			continue
		}
		said[f.Words] = true
		if f.Answer == tc.Unknown && d.err != nil && f.Words == d.err.Error() {
			fmt.Fprintf(c.stdout, "\nThe kernel's part is %s: %s\n", c.paint(yellow, "unknown"), f.Words)
			continue
		}
		fix := f.Fix
		if f.Since != "" {
			fix += " Linux has had it since " + f.Since + "."
		}
		fmt.Fprintf(c.stdout, "\n%s is %s: %s\n  cost: %s\n  fix:  %s\n", f.Name, c.paint(styleOf(f), f.Answer.String()), f.Words, f.Cost, fix)
	}
}

func styleOf(f tc.Finding) style {
	switch {
	case f.Answer == tc.Yes:
		return green
	case f.Answer == tc.No && f.Vital:
		return red
	}
	return yellow
}
