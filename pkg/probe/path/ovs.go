package path

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A vswitch is an Open vSwitch of a node, with a database and a directory of its own. It is configured by Open vSwitch's tools, which come with
// its daemons, and wait until these have done what they are told.
type vswitch struct {
	site *site
	node *space
	dir  string
	env  []string
}

// The datapaths of Open vSwitch.
const (
	kernelDatapath    = "system"
	userspaceDatapath = "netdev"
)

// buildOVS is two pods of one node on a bridge of Open vSwitch.
func buildOVS(datapath string, flows ...string) func(context.Context, *site) error {
	return func(ctx context.Context, s *site) error {
		node, err := s.space(node1)
		if err != nil {
			return err
		}
		v, err := s.vswitch(ctx, node1, datapath)
		if err != nil {
			return err
		}
		for i, role := range []string{pod1, pod2} {
			if err := s.plug(ctx, v, node, i, role, s.want.mtu()); err != nil {
				return err
			}
		}
		if datapath == userspaceDatapath {
			// Without its segmentation offload, userspace does not fill in the checksums that veth leaves out.
			for _, role := range []string{pod1, pod2} {
				if err := s.spaces[role].noOffloads(podDevice); err != nil {
					return err
				}
			}
		}
		return v.flows(ctx, flows)
	}
}

// buildOVSTunnel is a pod on each of two nodes, whose bridges are joined by a tunnel that Open vSwitch makes.
func buildOVSTunnel(kind string, overhead int) func(context.Context, *site) error {
	return func(ctx context.Context, s *site) error {
		nodes, err := s.nodes()
		if err != nil {
			return err
		}
		for i, role := range []string{node1, node2} {
			v, err := s.vswitch(ctx, role, kernelDatapath)
			if err != nil {
				return err
			}
			if err := s.plug(ctx, v, nodes[i], i, []string{pod1, pod2}[i], s.want.mtu()-overhead); err != nil {
				return err
			}
			err = v.configure(ctx, "add-port", bridgeDevice, tunnelDevice, "--", "set", "interface", tunnelDevice, "type="+kind,
				"options:remote_ip="+wire[1-i].Addr().String(), "options:key="+strconv.Itoa(vni))
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// conntrackFlows let through what conntrack knows or is told now, in a zone of their own.
var conntrackFlows = []string{
	"table=0,priority=10,ip,ct_state=-trk,actions=ct(table=1,zone=1)",
	"table=0,priority=0,actions=NORMAL",
	"table=1,priority=10,ip,ct_state=+trk+new,actions=ct(commit,zone=1),NORMAL",
	"table=1,priority=10,ip,ct_state=+trk+est,actions=NORMAL",
}

// plug makes a pod that is a port of the bridge.
func (s *site) plug(ctx context.Context, v *vswitch, node *space, i int, role string, mtu int) error {
	pod, err := s.pod(role, node, flat[i], mtu)
	if err != nil {
		return err
	}
	s.setEnd(i, pod, flat[i], podDevice)
	return v.configure(ctx, "add-port", bridgeDevice, hostDevice(role))
}

// vswitch starts Open vSwitch inside a node, with an empty bridge.
func (s *site) vswitch(ctx context.Context, role, datapath string) (*vswitch, error) {
	v := &vswitch{site: s, node: s.spaces[role], dir: s.dir(role)}
	for _, what := range []string{"RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR"} {
		v.env = append(v.env, "OVS_"+what+"="+v.dir, "OVN_"+what+"="+v.dir)
	}
	for _, program := range []string{"ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl"} {
		if _, err := lookup(program); err != nil {
			return nil, err
		}
	}
	if datapath == kernelDatapath {
		if err := v.node.do(hasDatapath); err != nil {
			return nil, err
		}
		if err := waitUptime(ctx); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return nil, err
	}
	s.undo = append(s.undo, func() error { return os.RemoveAll(v.dir) })
	if datapath == userspaceDatapath {
		// Its bridges are TAP devices: this says if there are none, and loads the module.
		tun, err := v.node.tun(tunnelDevice, v.dir)
		if err != nil {
			return nil, err
		}
		if err := tun.Close(); err != nil {
			return nil, err
		}
	}
	version, err := v.version(ctx, "ovs-vswitchd")
	if err != nil {
		return nil, err
	}
	s.fact("Open vSwitch", strings.TrimPrefix(version, "ovs-vswitchd (Open vSwitch) "))
	if err := v.serve(ctx, "ovsdb-server", "db", "conf.db", ""); err != nil {
		return nil, err
	}
	if err := v.configure(ctx, "--no-wait", "init"); err != nil {
		return nil, err
	}
	if err := v.daemon("ovs-vswitchd", v.database()); err != nil {
		return nil, err
	}
	return v, v.configure(ctx, "add-br", bridgeDevice, "--", "set", "bridge", bridgeDevice, "datapath_type="+datapath)
}

func (v *vswitch) database() string { return v.socket("db") }

// socket is the remote of a database.
func (v *vswitch) socket(name string) string { return "unix:" + filepath.Join(v.dir, name+".sock") }

// daemon starts one of the daemons.
func (v *vswitch) daemon(argv ...string) error { return v.daemonAs(argv[0], argv...) }

// daemonAs starts one of which there are several.
func (v *vswitch) daemonAs(name string, argv ...string) error {
	pidfile := filepath.Join(v.dir, name+".pid")
	argv = append(argv, "--pidfile="+pidfile, "-vconsole:warn")
	_, err := v.site.start(v.node, filepath.Join(v.dir, name+".log"), v.env, nil, argv...)
	return err
}

// serve starts the server of a database that there is none of yet; schema "": that of Open vSwitch.
func (v *vswitch) serve(ctx context.Context, process, name, file, schema string) error {
	file = filepath.Join(v.dir, file)
	create := []string{"ovsdb-tool", "create", file}
	if schema != "" {
		create = append(create, schema)
	}
	if err := v.run(ctx, create...); err != nil {
		return err
	}
	if err := v.daemonAs(process, "ovsdb-server", file, "--remote=p"+v.socket(name)); err != nil {
		return err
	}
	return v.waitDatabase(ctx, name)
}

// run runs one of the tools.
func (v *vswitch) run(ctx context.Context, argv ...string) error {
	return v.site.run(ctx, v.node, filepath.Join(v.dir, argv[0]+".log"), v.env, argv...)
}

// version is what a program says that it is, in a line.
func (v *vswitch) version(ctx context.Context, program string) (string, error) {
	file := filepath.Join(v.dir, program+".version")
	if err := v.site.run(ctx, v.node, file, v.env, program, "--version"); err != nil {
		return "", err
	}
	said, err := os.ReadFile(file)
	first, _, _ := strings.Cut(string(said), "\n")
	return first, err
}

// toolTimeout is how long one of the tools may wait for daemons: for OVN all of it, from an empty Northbound database on, on a slow machine.
const toolTimeout = "--timeout=120"

// configure runs ovs-vsctl, which waits for ovs-vswitchd.
func (v *vswitch) configure(ctx context.Context, args ...string) error {
	return v.run(ctx, append([]string{"ovs-vsctl", toolTimeout, "--db=" + v.database()}, args...)...)
}

// flows replaces those of the bridge; none: what a bridge does by itself, NORMAL.
func (v *vswitch) flows(ctx context.Context, flows []string) error {
	if len(flows) == 0 {
		return nil
	}
	file := filepath.Join(v.dir, "flows")
	if err := os.WriteFile(file, []byte(strings.Join(flows, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return v.run(ctx, "ovs-ofctl", "-O", "OpenFlow13", "replace-flows", bridgeDevice, file) // the first version that has tables
}

// waitDatabase waits until ovsdb-server answers.
func (v *vswitch) waitDatabase(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		c, err := net.Dial("unix", filepath.Join(v.dir, name+".sock"))
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("ovsdb-server: %w (%w)", ctx.Err(), err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// hasDatapath asks for the kernel's module, which loads it if there is one.
func hasDatapath() error {
	if _, err := netlink.GenlFamilyGet("ovs_datapath"); err != nil {
		return lacks("genl ctrl get name ovs_datapath", "this kernel has no Open vSwitch datapath", err, unix.ENOENT)
	}
	return nil
}

// waitUptime waits until the machine has run for eleven seconds. ovs-vswitchd 3.1 that is started in the first ten thinks that it has no CPU
// (count_cpu_cores of lib/ovs-thread.c keeps what it has, the initial 0, for that long), and starts no handler thread.
func waitUptime(ctx context.Context) error {
	const enough = 11 * time.Second
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("sysinfo: %w", err)
	}
	left := enough - time.Duration(info.Uptime)*time.Second
	if left <= 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(left):
		return nil
	}
}

// noOffloads makes the namespace's own stack finish its packets.
func (s *space) noOffloads(dev string) error {
	err := s.do(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		return e.Change(dev, map[string]bool{"tx-checksum-ip-generic": false})
	})
	if err != nil {
		return fmt.Errorf("netns %s: ethtool -K %s tx off: %w", s.name, dev, err)
	}
	return nil
}
