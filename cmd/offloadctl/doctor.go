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

	"github.com/offloadd/offloadd/pkg/dpctl"
	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/tc"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// defaultDatabase is where Open vSwitch has its database.
const defaultDatabase = "unix:/run/openvswitch/db.sock"

// A diagnosis is what doctor has found out. Findings of Open vSwitch and of the node have capabilities of their own.
type diagnosis struct {
	kernel, ovs    string // versions, if they are known
	device, driver string
	findings       []tc.Finding
	megaflows      map[string][dpctl.NIC + 1]dpctl.Sum // by device, if offload is delegated
	err            error                               // of the probe of the kernel
}

// The values of --offload, which are those of the daemon's configuration.
const (
	offloadDirect    = "direct"
	offloadDelegated = "delegated"
)

func (c *cli) doctorCommand() *cobra.Command {
	var device, database, mode string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "find out what kernel, Open vSwitch and a device can do for offload; it needs no daemon",
		Long: `doctor tries in a network namespace of its own what the filters of offloadd need of the kernel, reads how Open vSwitch is configured,
and says of each gap what it costs and what fixes it. It needs root. The exit code is 1 if something is missing without which
there are no filters.

With --offload delegated it says the same of the mode in which Open vSwitch offloads its own megaflows, and where they are. The
default is the mode of the daemon if one runs, and else direct.

With --device it also adds filters to a device, for the hardware alone, and removes them again. No packet meets them.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
			defer cancel()
			switch mode {
			case offloadDirect, offloadDelegated:
			case "":
				mode = c.daemonMode(ctx)
			default:
				return usageError{fmt.Errorf("--offload %q: neither %s nor %s", mode, offloadDirect, offloadDelegated)}
			}
			d := examine(ctx, database, mode == offloadDelegated)
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
	cmd.Flags().StringVar(&mode, "offload", "", "the daemon's `mode`: direct or delegated")
	mustComplete(cmd, "offload", offloadDirect, offloadDelegated)
	cmd.Flags().StringVar(&database, "database", defaultDatabase, "`remote` of the Open_vSwitch database")
	return cmd
}

// daemonTimeout is how long the daemon may take to say its mode. It need not run.
const daemonTimeout = 2 * time.Second

// daemonMode returns the mode of the daemon, direct if it does not say.
func (c *cli) daemonMode(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	mode := offloadDirect
	_ = c.stream(ctx, func(d daemon) error { // that it does not run is no error
		st, err := d.node.GetStatus(ctx, &offloadv1.GetStatusRequest{})
		if st.GetOffload().GetMode() == offloadv1.OffloadMode_OFFLOAD_MODE_DELEGATED {
			mode = offloadDelegated
		}
		return err
	})
	return mode
}

// examine looks at kernel, Open vSwitch and node.
func examine(ctx context.Context, database string, delegated bool) diagnosis {
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
	d.findings = append(d.findings, sw.findings(err, delegated)...)
	if delegated && sw.hw {
		d.findings = append(d.findings, recirculation(&caps))
		var f tc.Finding
		f, d.megaflows = megaflows(ctx, database, sw.userspace)
		d.findings = append(d.findings, f)
	}
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
		Fix:  "ovs-vsctl remove open . other_config hw-offload, and restart ovs-vswitchd; or set offload: delegated for offloadd.",
	}
	checkDelegated = tc.Capability{
		Name: "ovs.hw-offload", What: "Open vSwitch offloads its megaflows", Needs: "ovs.database", Vital: true,
		Cost: "Nothing is offloaded: offload is delegated to Open vSwitch, which forwards all packets by itself.",
		Fix:  "ovs-vsctl set open . other_config:hw-offload=true, and restart ovs-vswitchd; or set offload: direct for offloadd.",
	}
	checkPolicy = tc.Capability{
		Name: "ovs.tc-policy", What: "Open vSwitch offers its filters to hardware", Needs: "ovs.hw-offload",
		Cost: "They stay in software, where they are no gain.", Fix: "ovs-vsctl remove open . other_config tc-policy, and restart ovs-vswitchd.",
	}
	checkRecirculation = tc.Capability{
		Name: "ovs.recirculation", What: "Open vSwitch offloads packets that are recirculated", Needs: "ovs.hw-offload",
		Cost: "What asks the connection tracker stays in Open vSwitch, which is nearly all that passes ACLs.",
		Fix:  "Use a kernel with CONFIG_NET_TC_SKB_EXT, as those of Ubuntu and RHEL are; Debian's are not.",
	}
	checkMegaflows = tc.Capability{
		Name: "ovs.megaflows", What: "megaflows are in hardware", Needs: "ovs.hw-offload", Cost: "Packets go through software.",
		Fix: "offloadctl explain PORT tells which are not; why not is in ovs-vswitchd.log after ovs-appctl vlog/set netdev_offload_tc:file:dbg tc:file:dbg.",
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
	policy        string // other_config:tc-policy
}

// findings judges a vswitch, or why there is none.
func (s vswitch) findings(err error, delegated bool) []tc.Finding {
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
	if s.exists && !delegated { // the userspace datapath offloads too
		fs = append(fs, judge(&checkDatapath, !s.userspace, "datapath_type of "+s.bridge+" is netdev"))
	}
	if !delegated {
		return append(fs, judge(&checkHWOffload, !s.hw, "other_config:hw-offload is true"))
	}
	fs = append(fs, judge(&checkDelegated, s.hw, "other_config:hw-offload is not true"))
	if s.hw {
		fs = append(fs, judge(&checkPolicy, s.policy != "skip_hw", "other_config:tc-policy is skip_hw"))
	}
	return fs
}

// recirculation says whether Open vSwitch may offload what is recirculated: it does not if a packet that leaves a chain in the middle would
// begin anew (netdev_tc_flow_put of lib/netdev-offload-tc.c).
func recirculation(caps *tc.Caps) tc.Finding {
	f := tc.Finding{Capability: &checkRecirculation}
	for _, k := range caps.Findings {
		if k.Name == tc.CapResume {
			f.Answer, f.Words = k.Answer, k.Words
		}
	}
	return f
}

// megaflows asks ovs-vswitchd, whose files are beside the socket of the database, where its megaflows are.
func megaflows(ctx context.Context, database string, userspace bool) (tc.Finding, map[string][dpctl.NIC + 1]dpctl.Sum) {
	path, ok := strings.CutPrefix(database, "unix:")
	if !ok {
		return tc.Finding{Capability: &checkMegaflows, Words: "the database is not on a unix socket, so that it is not known where ovs-vswitchd listens"}, nil
	}
	datapath := dpctl.KernelDatapath
	if userspace {
		datapath = dpctl.UserDatapath
	}
	var flows []dpctl.Flow
	conn, err := dpctl.Dial(ctx, filepath.Dir(path))
	if err == nil {
		flows, err = conn.Flows(ctx, datapath)
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		return tc.Finding{Capability: &checkMegaflows, Words: err.Error()}, nil
	}
	return judgeMegaflows(flows), dpctl.Sums(flows)
}

func judgeMegaflows(flows []dpctl.Flow) tc.Finding {
	var n [dpctl.NIC + 1]int
	for i := range flows {
		n[flows[i].Layer]++
	}
	f := tc.Finding{
		Capability: &checkMegaflows,
		Words:      fmt.Sprintf("%d are in hardware, %d in TC alone, %d in hardware in part, %d in Open vSwitch", n[dpctl.NIC], n[dpctl.TC], n[dpctl.Partly], n[dpctl.OVS]),
	}
	switch {
	case len(flows) == 0:
		f.Words = "there are none: no packet has passed for a while"
	case n[dpctl.NIC] == len(flows):
		f.Answer = tc.Yes
	default:
		f.Answer = tc.No
	}
	return f
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
					s.hw, s.policy = strings.EqualFold(row.OtherConfig["hw-offload"], "true"), row.OtherConfig["tc-policy"]
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
	told := map[string]any{"kernel": d.kernel, "ovs": d.ovs, "device": d.device, "driver": d.driver, "checks": checks}
	if d.megaflows != nil {
		devices := map[string]any{}
		for name, sums := range d.megaflows {
			layers := map[string]any{}
			for layer, s := range sums {
				layers[dpctl.Layer(layer).String()] = map[string]any{"flows": s.Flows, "packets": s.Packets, "bytes": s.Bytes}
			}
			devices[name] = layers
		}
		told["megaflows"] = devices
	}
	m, err := structpb.NewStruct(told)
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
	c.tellMegaflows(d.megaflows)
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

// tellMegaflows prints where the megaflows of each device are.
func (c *cli) tellMegaflows(sums map[string][dpctl.NIC + 1]dpctl.Sum) {
	if len(sums) == 0 {
		return
	}
	fmt.Fprintln(c.stdout)
	t := table{c: c}
	if !c.noHeaders {
		t.heading = []cell{{text: "DEVICE"}, {text: "NIC"}, {text: "TC"}, {text: "PARTLY"}, {text: "OVS"}}
	}
	for _, name := range sortedKeys(sums) {
		row := []cell{{text: name}}
		for _, layer := range []dpctl.Layer{dpctl.NIC, dpctl.TC, dpctl.Partly, dpctl.OVS} {
			s := sums[name][layer]
			row = append(row, cell{text: fmt.Sprintf("%d flows, %d packets", s.Flows, s.Packets)})
		}
		t.add(row)
	}
	t.flush()
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
