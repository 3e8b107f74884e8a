package path

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/dpctl"
	"github.com/offloadd/offloadd/pkg/tc"
)

// What makes a node a chassis of OVN.
const (
	ChassisOffloadd      = "offloadd"
	ChassisOVNController = "ovn-controller"
)

// ovnOverhead is what OVN's tunnels take of an MTU: Geneve with an option of four octets for the two ports.
const ovnOverhead = geneveOverhead + 8

// ovnDevice is that of all Geneve tunnels of a namespace, as ovs-vswitchd calls it.
const ovnDevice = "genev_sys_6081"

// buildOVN is two pods on a logical switch, whose ACL lets connections of the switch through and nothing else: on one node, or on two with a Geneve
// tunnel between. With filters the chassis, which are ours then, have the pipeline in TC too.
func buildOVN(two, filters bool) func(context.Context, *site) error {
	return func(ctx context.Context, s *site) error {
		d := &deployment{site: s, filters: filters, agent: s.want.Chassis}
		if d.agent == "" {
			d.agent = ChassisOffloadd
		}
		roles := []string{node1}
		if two {
			roles = append(roles, node2)
			if _, err := s.nodes(); err != nil {
				return err
			}
		} else if _, err := s.space(node1); err != nil {
			return err
		}
		if err := d.possible(ctx); err != nil {
			return err
		}
		mtu := s.want.mtu()
		if two {
			mtu -= ovnOverhead
		}
		for i, role := range roles {
			v, err := s.vswitch(ctx, role, kernelDatapath)
			if err != nil {
				return err
			}
			d.nodes = append(d.nodes, v)
			if i == 0 {
				if err := d.central(ctx); err != nil {
					return err
				}
			}
			if err := d.chassis(ctx, i, role); err != nil {
				return err
			}
		}
		for i, pod := range []string{pod1, pod2} {
			v := d.nodes[min(i, len(d.nodes)-1)]
			if err := s.plug(ctx, v, v.node, i, pod, mtu); err != nil {
				return err
			}
			if err := v.configure(ctx, "set", "interface", hostDevice(pod), "external_ids:iface-id="+pod); err != nil {
				return err
			}
		}
		if err := d.logical(ctx); err != nil {
			return err
		}
		s.path.Target = s.path.Server.Addr
		if err := s.prime(ctx); err != nil {
			return err
		}
		return d.prove(ctx)
	}
}

// A deployment is OVN: the databases and ovn-northd are on the first node.
type deployment struct {
	site    *site
	nodes   []*vswitch
	agent   string
	filters bool
}

// possible says what the kernel or the machine lacks.
func (d *deployment) possible(ctx context.Context) error {
	if err := d.site.spaces[node1].do(hasDatapath); err != nil {
		return err
	}
	for _, program := range []string{"ovn-northd", "ovn-nbctl", d.agent} {
		if _, err := lookup(program); err != nil {
			return err
		}
	}
	if !d.filters {
		return nil
	}
	caps, err := tc.Probe(ctx)
	if err != nil {
		return err
	}
	for _, f := range caps.Missing() {
		// What asks the connection tracker is all that passes the ACL.
		if f.Vital || f.Name == tc.CapCT || f.Name == "key.ct_state" || f.Name == "key.ct_zone" {
			return &lack{"filter add " + f.Name, "this kernel's TC lacks " + f.What, errors.New(f.Words)}
		}
	}
	return nil
}

// central starts the databases, and ovn-northd.
func (d *deployment) central(ctx context.Context) error {
	v := d.nodes[0]
	version, err := v.version(ctx, "ovn-northd")
	if err != nil {
		return err
	}
	d.site.fact("OVN", strings.TrimPrefix(version, "ovn-northd "))
	for _, db := range []string{"nb", "sb"} {
		schema, err := ovnSchema(db)
		if err != nil {
			return err
		}
		if err := v.serve(ctx, "ovsdb-server-"+db, db, db+".db", schema); err != nil {
			return err
		}
	}
	return v.daemon("ovn-northd", "--ovnnb-db="+v.socket("nb"), "--ovnsb-db="+v.socket("sb"))
}

// ovnSchema finds the schema of one of OVN's databases, which is installed with OVN.
func ovnSchema(db string) (string, error) {
	for _, dir := range []string{os.Getenv("OVN_PKGDATADIR"), "/usr/share/ovn", "/usr/local/share/ovn"} {
		file := filepath.Join(dir, "ovn-"+db+".ovsschema")
		if _, err := os.Stat(file); dir != "" && err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("ovn-%s.ovsschema: it is neither in /usr/share/ovn nor in /usr/local/share/ovn", db)
}

// chassis makes a node one.
func (d *deployment) chassis(ctx context.Context, i int, role string) error {
	v := d.nodes[i]
	err := v.configure(ctx, "set-fail-mode", bridgeDevice, "secure", "--", "set", "open", ".", "external_ids:system-id="+role,
		"external_ids:ovn-bridge="+bridgeDevice, "external_ids:ovn-remote="+strconv.Quote(d.nodes[0].socket("sb")),
		"external_ids:ovn-encap-type=geneve", "external_ids:ovn-encap-ip="+wire[i].Addr().String())
	if err != nil {
		return err
	}
	version, err := v.version(ctx, d.agent)
	if err != nil {
		return err
	}
	d.site.fact("chassis", version)
	if d.agent == ChassisOVNController {
		return v.daemon(ChassisOVNController, v.database())
	}
	argv := []string{ChassisOffloadd, "--run-dir=" + v.dir, "--state-dir=" + filepath.Join(v.dir, "state"), "--log-level=warn", "--offload=off"}
	if d.filters {
		argv = append(argv[:len(argv)-1], "--offload=direct", "--tc-software")
	}
	_, err = d.site.start(v.node, filepath.Join(v.dir, "offloadd.log"), v.env, nil, append(argv, v.database())...)
	return err
}

// logical fills the Northbound database, and waits until it is in force.
func (d *deployment) logical(ctx context.Context) error {
	const ls = "opr"
	subnet := flat[0].Masked().String()
	argv := []string{"ls-add", ls}
	for i, pod := range []string{pod1, pod2} {
		link, err := d.site.spaces[pod].byName(podDevice)
		if err != nil {
			return err
		}
		addresses := link.Attrs().HardwareAddr.String() + " " + flat[i].Addr().String()
		argv = append(argv, "--", "lsp-add", ls, pod, "--", "lsp-set-addresses", pod, addresses, "--", "lsp-set-port-security", pod, addresses)
	}
	argv = append(argv, "--", "acl-add", ls, "to-lport", "1001", "ip4.src == "+subnet, "allow-related", "--", "acl-add", ls, "to-lport", "1000", "ip", "drop")
	if err := d.nbctl(ctx, argv...); err != nil {
		return err
	}
	for i, pod := range []string{pod1, pod2} {
		v := d.nodes[min(i, len(d.nodes)-1)]
		if err := v.configure(ctx, "wait-until", "interface", hostDevice(pod), "external_ids:ovn-installed=true"); err != nil {
			return fmt.Errorf("chassis %s has not installed port %s: %w; it says: %s", d.agent, pod, err, tail(filepath.Join(v.dir, d.agent+".log")))
		}
	}
	return d.nbctl(ctx, "--wait=hv", "sync")
}

// tail is the end of a log.
func tail(log string) string {
	const enough = 1000
	said, _ := os.ReadFile(log) // there may be none
	return string(bytes.TrimSpace(said[max(0, len(said)-enough):]))
}

func (d *deployment) nbctl(ctx context.Context, args ...string) error {
	v := d.nodes[0]
	return v.run(ctx, append([]string{"ovn-nbctl", toolTimeout, "--db=" + v.socket("nb")}, args...)...)
}

// proofPackets are sent in each direction to see which way they take. A few at most take another: a connection's first ones are let through, and
// committed, by Open vSwitch.
const proofPackets, proofFew = 32, 8

// A count is of packets on a node: those that its datapath has looked up, each as often as it was there, those that filters have sent on, and
// those that have left by the tunnel.
type count struct{ datapath, filters, tunnel uint64 }

// prove sends packets, and looks at where they were counted.
func (d *deployment) prove(ctx context.Context) error {
	var before []count
	for _, v := range d.nodes {
		n, err := v.count(ctx)
		if err != nil {
			return err
		}
		before = append(before, n)
	}
	if err := d.site.exchange(ctx, proofPackets); err != nil {
		return err
	}
	for i, v := range d.nodes {
		n, err := v.count(ctx)
		if err != nil {
			return err
		}
		n = count{n.datapath - before[i].datapath, n.filters - before[i].filters, n.tunnel - before[i].tunnel}
		role := []string{node1, node2}[i]
		way, err := n.way(d.filters, len(d.nodes) > 1)
		if err != nil {
			return fmt.Errorf("%s: %w", role, err)
		}
		d.site.fact(role+" forwards by", way)
	}
	return nil
}

// way says which way the packets of a proof took, or that they did not take the one that they should have.
func (n count) way(filters, tunnel bool) (string, error) {
	const all = 2 * proofPackets
	seen := fmt.Sprintf("of %d packets Open vSwitch's datapath has looked up %d, filters have sent on %d, and of half of them %d have left by the tunnel",
		all, n.datapath, n.filters, n.tunnel)
	switch {
	case tunnel && n.tunnel < proofPackets:
		return "", fmt.Errorf("they do not take the tunnel: %s", seen)
	case filters && (n.filters < all-proofFew || n.datapath > 4*proofFew): // each is looked up some times
		return "", fmt.Errorf("they do not take the filters: %s", seen)
	case !filters && (n.datapath < all || n.filters > 0):
		return "", fmt.Errorf("they do not take Open vSwitch's datapath: %s", seen)
	case filters:
		return "filters of offloadd", nil
	}
	return "Open vSwitch's datapath", nil
}

// count reads the counters of a node.
func (v *vswitch) count(ctx context.Context) (n count, err error) {
	ctl, err := dpctl.Dial(ctx, v.dir)
	if err != nil {
		return n, err
	}
	n.datapath, err = ctl.Lookups(ctx, dpctl.KernelDatapath)
	if err := errors.Join(err, ctl.Close()); err != nil {
		return n, err
	}
	if n.filters, err = sentByFilters(ctx, v.node.path); err != nil {
		return n, err
	}
	if link, err := v.node.link.LinkByName(ovnDevice); err == nil { // there is none on a single node
		n.tunnel = link.Attrs().Statistics.TxPackets
	}
	return n, nil
}

// sentByFilters is how many packets the filters of a namespace have sent to devices.
func sentByFilters(ctx context.Context, netns string) (sent uint64, err error) {
	conn, err := tc.Dial(tc.DialOptions{NetNS: netns})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	qdiscs, err := conn.Qdiscs(ctx)
	if err != nil {
		return 0, err
	}
	blocks := map[uint32]bool{0: true} // 0: not shared, which those of offloadd are
	for _, q := range qdiscs {
		if blocks[q.Block] {
			continue
		}
		blocks[q.Block] = true
		err := conn.Dump(ctx, tc.Target{Block: q.Block}, tc.DumpOptions{}, func(f *tc.Installed) error {
			for i, a := range f.Filter.Actions {
				if _, ok := a.(tc.Mirred); ok && i < len(f.Actions) {
					sent += f.Actions[i].Packets
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return sent, nil
}
