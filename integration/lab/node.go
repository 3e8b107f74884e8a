package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

const vswitchSchema = "/usr/share/openvswitch/vswitch.ovsschema"

// An Agent is the program that makes a node an OVN chassis.
type Agent string

// The agents a node can have. None leaves the node with a bare Open vSwitch.
const (
	Offloadd      Agent = "offloadd"
	OVNController Agent = "ovn-controller"
	None          Agent = "none"
)

// ParseAgent reads an agent's name.
func ParseAgent(s string) (Agent, error) {
	if a := Agent(s); slices.Contains([]Agent{Offloadd, OVNController, None}, a) {
		return a, nil
	}
	return None, fmt.Errorf("lab agent %q: want %s, %s or %s", s, Offloadd, OVNController, None)
}

// A NodeConfig describes a node.
type NodeConfig struct {
	// Name is the chassis name (external_ids:system-id) too.
	Name string

	Agent Agent

	// AgentArgs are added to the agent's command line.
	AgentArgs []string

	// EncapTypes default to geneve, EncapIPs to the node's IPv4 address on the underlay. Other addresses
	// are added to the node's device on the underlay (Datapath).
	EncapTypes []string
	EncapIPs   []netip.Addr

	// ExternalIDs are set in the Open_vSwitch table besides those that the lab sets.
	ExternalIDs map[string]string

	// Host makes the node of this process's network namespace instead of a new one: that of NICs, to which their netdevs
	// return when another namespace dies. It is for guests, where there is nothing else in it.
	Host bool

	// Uplink is the netdev of a Host node that has its addresses on the underlay, of the kernel's datapath, and Wire the netdev of this
	// process's network namespace that its cable leads to: that becomes a port of the underlay, and comes back when the lab is closed.
	// Empty: a veth pair is both.
	Uplink, Wire string

	// ConfigYAML is added to offloadd's configuration file.
	ConfigYAML string
}

// A Node is a hypervisor: a namespace with Open vSwitch and a chassis agent.
type Node struct {
	// Name is the chassis name.
	Name string

	// Dir holds the node's sockets, databases and logs; it is the OVS_RUNDIR of its programs.
	Dir string

	// UnderlayIP is the node's address on the underlay.
	UnderlayIP netip.Addr

	lab    *Lab
	config NodeConfig
	index  int // from 1
	space  *space
	agent  Agent // what runs now
}

func newNode(l *Lab, index int, c NodeConfig) *Node {
	if len(c.EncapTypes) == 0 {
		c.EncapTypes = []string{"geneve"}
	}
	ip := netip.MustParseAddr(fmt.Sprintf(underlay4, index))
	if len(c.EncapIPs) == 0 {
		c.EncapIPs = []netip.Addr{ip}
	}
	return &Node{Name: c.Name, Dir: filepath.Join(l.Dir, c.Name), UnderlayIP: ip, lab: l, config: c, index: index, agent: None}
}

// OVSRemote is the node's Open_vSwitch database, for any namespace.
func (n *Node) OVSRemote() string { return "unix:" + filepath.Join(n.Dir, "db.sock") }

// Netns is the name of the node's network namespace, as ip-netns(8) knows it.
func (n *Node) Netns() string { return n.space.name }

// Agent is the agent that was started last, or None if it was stopped.
func (n *Node) Agent() Agent { return n.agent }

func (n *Node) start(ctx context.Context) error {
	if err := os.Mkdir(n.Dir, 0o755); err != nil {
		return err
	}
	var err error
	enter := newSpace
	if n.config.Host {
		enter = nameSpace
	}
	if n.space, err = enter(n.lab.Name + "-" + n.Name); err != nil {
		return err
	}
	for bridge, dev := range map[string]string{"underlay": "phy0", "mgmt": "mgmt0"} {
		port := fmt.Sprintf("%s%d", dev, n.index)
		if bridge == "underlay" && n.config.Wire != "" {
			port, err = n.config.Wire, n.space.move(n.config.Wire, n.lab.net)
		} else {
			err = n.space.veth(dev, nil, n.lab.net, port)
		}
		if err != nil {
			return err
		}
		if err := n.lab.net.enslave(port, bridge); err != nil {
			return err
		}
	}
	err = n.space.links(func(h *netlink.Handle) error { return configure(h, "mgmt0", fmt.Sprintf(mgmt4, n.index)+"/24") })
	if err != nil {
		return err
	}
	return n.startOVS(ctx)
}

func (n *Node) startOVS(ctx context.Context) error {
	if _, err := n.tool(ctx, "ovsdb-tool", "create", filepath.Join(n.Dir, "conf.db"), vswitchSchema); err != nil {
		return err
	}
	if err := n.startOVSDB(ctx); err != nil {
		return err
	}
	if err := n.lab.opts.Datapath.prepare(ctx, n.space); err != nil {
		return err
	}
	if err := n.startVswitchd(); err != nil {
		return err
	}
	ids := map[string]string{
		"system-id":      n.Name,
		"ovn-remote":     n.lab.agentRemote(),
		"ovn-encap-type": strings.Join(n.config.EncapTypes, ","),
		"ovn-encap-ip":   join(n.config.EncapIPs),
	}
	if n.lab.opts.MonitorAll {
		ids["ovn-monitor-all"] = "true"
	}
	maps.Copy(ids, n.config.ExternalIDs)
	args := []string{"init", "--", "add-br", "br-int", "--", "set", "bridge", "br-int", "fail_mode=secure"}
	if n.lab.opts.Datapath == Netdev {
		args = append(args, "datapath_type=netdev",
			"--", "add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev", "other_config:hwaddr="+n.mac(),
			"--", "add-port", "br-phy", "phy0")
	}
	args = append(args, "--", "set", "open", ".")
	for k, v := range ids {
		args = append(args, "external_ids:"+k+"="+strconv.Quote(v))
	}
	// Without --no-wait, ovs-vsctl returns when ovs-vswitchd has done it all.
	if _, err := n.VSctl(ctx, args...); err != nil {
		return err
	}
	return n.addressUnderlay()
}

// addressUnderlay gives the device on the underlay its addresses; ovs-vswitchd makes br-phy anew whenever it starts.
func (n *Node) addressUnderlay() error {
	var addrs []string
	for _, ip := range n.underlayIPs() {
		bits := 24
		if ip.Is6() {
			bits = 64
		}
		addrs = append(addrs, netip.PrefixFrom(ip, bits).String())
	}
	return n.space.links(func(h *netlink.Handle) error {
		return configure(h, cmp.Or(n.config.Uplink, n.lab.opts.Datapath.underlay()), addrs...)
	})
}

// mac is the Ethernet address of br-phy.
func (n *Node) mac() string { return fmt.Sprintf("0a:00:ac:1f:00:%02x", n.index) }

func (n *Node) underlayIPs() []netip.Addr {
	ips := []netip.Addr{n.UnderlayIP, netip.MustParseAddr(fmt.Sprintf(underlay6, n.index))}
	for _, ip := range n.config.EncapIPs {
		if !slices.Contains(ips, ip) {
			ips = append(ips, ip)
		}
	}
	return ips
}

// resolveUnderlay tells ovs-vswitchd the Ethernet addresses of the other nodes. It would ask for them
// itself, but drops the packet that made it ask. The kernel keeps that packet.
func (n *Node) resolveUnderlay(ctx context.Context) error {
	if n.lab.opts.Datapath != Netdev {
		return nil
	}
	for _, other := range n.lab.Nodes {
		if other == n {
			continue
		}
		for _, ip := range other.underlayIPs() {
			if _, err := n.AppCtl(ctx, "tnl/neigh/set", "br-phy", ip.String(), other.mac()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *Node) startOVSDB(ctx context.Context) error {
	p, err := n.spawn("ovsdb-server", filepath.Join(n.Dir, "conf.db"), "--remote=punix:"+filepath.Join(n.Dir, "db.sock"))
	if err != nil {
		return err
	}
	return p.until(ctx, "its socket", func() bool { return accepts(filepath.Join(n.Dir, "db.sock")) })
}

// startVswitchd also puts ovs-vswitchd before everything else on this machine where it is the wire and the switch, whose
// packets do not wait until a compiler has had its turn on the CPU. Where the kernel forwards it gets no more than others: without its
// database ovs-vswitchd 3.1 is busy all the time, and would keep a new ovsdb-server from the CPU.
func (n *Node) startVswitchd() error {
	p, err := n.spawn("ovs-vswitchd", n.OVSRemote())
	if err != nil || n.lab.opts.Datapath != Netdev {
		return err
	}
	const highest = -20
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, p.cmd.Process.Pid, highest); err != nil {
		return fmt.Errorf("node %s: ovs-vswitchd: setpriority: %w", n.Name, err)
	}
	return nil
}

// spawn starts an OVS or OVN daemon with the node's directory for everything.
func (n *Node) spawn(program string, args ...string) (*process, error) {
	log := filepath.Join(n.Dir, program+".log")
	pid := filepath.Join(n.Dir, program+".pid")
	argv := append([]string{program, "--pidfile=" + pid, "-vconsole:off", "--log-file=" + log}, args...)
	n.lab.logf("%s: %s", n.Name, strings.Join(argv, " "))
	return n.lab.spawn(n.space, n.Name+"/"+program, log, n.Env(), argv...)
}

// StartAgent starts a chassis agent; it does not wait for the agent to have done anything.
func (n *Node) StartAgent(a Agent) error {
	switch a {
	case OVNController:
		if err := n.startOVNController(); err != nil {
			return err
		}
	case Offloadd:
		if err := n.startOffloadd(); err != nil {
			return err
		}
	case None:
	default:
		return fmt.Errorf("node %s: unknown agent %q", n.Name, a)
	}
	n.agent = a
	return nil
}

func (n *Node) startOVNController() error {
	var args []string
	if n.lab.opts.TLS {
		k := n.lab.keys(n.Name)
		args = []string{"--private-key=" + k.private, "--certificate=" + k.certificate, "--ca-cert=" + k.ca}
	}
	args = append(args, n.config.AgentArgs...)
	_, err := n.spawn("ovn-controller", append(args, n.OVSRemote())...)
	return err
}

func (n *Node) startOffloadd() error {
	if n.lab.opts.OffloaddPath == "" {
		return errors.New("agent offloadd, but no OffloaddPath")
	}
	argv := []string{
		n.lab.opts.OffloaddPath,
		"--run-dir=" + n.Dir, "--state-dir=" + filepath.Join(n.Dir, "state"),
	}
	yaml := n.config.ConfigYAML
	if n.lab.opts.TLS {
		k := n.lab.keys(n.Name)
		yaml += fmt.Sprintf("tls:\n  private_key: %s\n  certificate: %s\n  ca_certificate: %s\n", k.private, k.certificate, k.ca)
	}
	if yaml != "" {
		file := filepath.Join(n.Dir, "offloadd.yaml")
		if err := os.WriteFile(file, []byte(yaml), 0o644); err != nil {
			return err
		}
		argv = append(argv, "--config="+file)
	}
	argv = append(append(argv, n.config.AgentArgs...), n.OVSRemote())
	n.lab.logf("%s: %s", n.Name, strings.Join(argv, " "))
	p, err := n.lab.spawn(n.space, n.Name+"/offloadd", filepath.Join(n.Dir, "offloadd.log"), n.Env(), argv...)
	if err != nil {
		return err
	}
	// For Sweep, as OVS daemons do it themselves.
	return os.WriteFile(filepath.Join(n.Dir, "offloadd.pid"), fmt.Appendln(nil, p.cmd.Process.Pid), 0o644)
}

// Configure sets NodeConfig.ConfigYAML, for the next StartAgent.
func (n *Node) Configure(yaml string) { n.config.ConfigYAML = yaml }

// StopAgent sends the running agent a signal and waits for its end. SIGTERM ends every agent with its flows
// and its rows left in place; SIGKILL is a crash.
func (n *Node) StopAgent(sig syscall.Signal) error {
	if n.agent == None {
		return nil
	}
	n.lab.logf("%s: %s: %v", n.Name, n.agent, sig)
	err := n.lab.process(n.Name + "/" + string(n.agent)).stop(sig)
	n.agent = None
	return err
}

// SignalAgent sends the running agent a signal that does not end it.
func (n *Node) SignalAgent(sig syscall.Signal) error {
	if n.agent == None {
		return fmt.Errorf("node %s: signal %v: no agent runs", n.Name, sig)
	}
	return n.lab.process(n.Name + "/" + string(n.agent)).cmd.Process.Signal(sig)
}

// AgentPID is the running agent's process id, or 0.
func (n *Node) AgentPID() int {
	if n.agent == None {
		return 0
	}
	return n.lab.process(n.Name + "/" + string(n.agent)).cmd.Process.Pid
}

// AgentRuns reports whether the agent that was started still runs.
func (n *Node) AgentRuns() bool {
	return n.agent != None && n.lab.process(n.Name+"/"+string(n.agent)).state() == "running"
}

// AgentEnd says how an agent that was started ended, such as "exit status 0", or "running".
func (n *Node) AgentEnd(a Agent) string { return n.lab.process(n.Name + "/" + string(a)).state() }

// AgentLog is the path of the log of the agent that runs, or of the configured one.
func (n *Node) AgentLog() string {
	a := n.agent
	if a == None {
		a = n.config.Agent
	}
	return filepath.Join(n.Dir, string(a)+".log")
}

// Restart kills ovsdb-server or ovs-vswitchd on the node and starts it again at once. A new ovs-vswitchd
// has no OpenFlow flows.
func (n *Node) Restart(ctx context.Context, daemon string) error {
	if err := n.Stop(daemon); err != nil {
		return err
	}
	return n.Resume(ctx, daemon)
}

// Stop kills ovsdb-server or ovs-vswitchd on the node; Resume starts it again.
func (n *Node) Stop(daemon string) error {
	n.lab.logf("%s: %s: SIGKILL", n.Name, daemon)
	return n.lab.process(n.Name + "/" + daemon).stop(syscall.SIGKILL)
}

// Resume starts what Stop ended.
func (n *Node) Resume(ctx context.Context, daemon string) error {
	switch daemon {
	case "ovsdb-server":
		return n.startOVSDB(ctx)
	case "ovs-vswitchd":
		if err := n.startVswitchd(); err != nil {
			return err
		}
		// ovs-vsctl waits for the new ovs-vswitchd to have read its configuration.
		if _, err := n.VSctl(ctx, "set", "open", ".", "external_ids:lab-restarted="+strconv.FormatInt(time.Now().UnixNano(), 10)); err != nil {
			return err
		}
		return errors.Join(n.addressUnderlay(), n.resolveUnderlay(ctx))
	default:
		return fmt.Errorf("node %s: no daemon %q", n.Name, daemon)
	}
}

// SetUnderlay connects the node to the underlay, or cuts it off.
func (n *Node) SetUnderlay(up bool) error {
	return n.lab.net.links(func(h *netlink.Handle) error {
		link, err := h.LinkByName(fmt.Sprintf("phy0%d", n.index))
		if err != nil {
			return err
		}
		if up {
			return h.LinkSetUp(link)
		}
		return h.LinkSetDown(link)
	})
}

// VSctl runs ovs-vsctl(8) on the node.
func (n *Node) VSctl(ctx context.Context, args ...string) (string, error) {
	return n.tool(ctx, append([]string{"ovs-vsctl", timeoutArg(20 * time.Second)}, args...)...)
}

// OFctl runs ovs-ofctl(8) on the node, with OpenFlow 1.5.
func (n *Node) OFctl(ctx context.Context, args ...string) (string, error) {
	return n.tool(ctx, append([]string{"ovs-ofctl", "-O", "OpenFlow15"}, args...)...)
}

// AppCtl runs ovs-appctl(8) against the node's ovs-vswitchd.
func (n *Node) AppCtl(ctx context.Context, args ...string) (string, error) {
	return n.tool(ctx, append([]string{"ovs-appctl"}, args...)...)
}

// AgentCtl runs ovn-appctl(8) against the node's ovn-controller.
func (n *Node) AgentCtl(ctx context.Context, args ...string) (string, error) {
	return n.tool(ctx, append([]string{"ovn-appctl", "-t", "ovn-controller"}, args...)...)
}

// Exec runs a program on the node.
func (n *Node) Exec(ctx context.Context, argv ...string) (string, error) {
	return n.tool(ctx, argv...)
}

// Flows counts the OpenFlow flows in a bridge.
func (n *Node) Flows(ctx context.Context, bridge string) (int, error) {
	out, err := n.OFctl(ctx, "dump-aggregate", bridge)
	if err != nil {
		return 0, err
	}
	m := flowCount.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("node %s: dump-aggregate: no flow_count in %q", n.Name, out)
	}
	return strconv.Atoi(m[1])
}

var flowCount = regexp.MustCompile(`flow_count=(\d+)`)

// A Tunnel is a tunnel port of br-int and what passed through it.
type Tunnel struct {
	Port, Type, Remote   string
	RxPackets, TxPackets int
}

// Tunnels lists the node's tunnel ports, sorted by remote address, type and name.
func (n *Node) Tunnels(ctx context.Context) ([]Tunnel, error) {
	out, err := n.VSctl(ctx, "--format=json", "--columns=name,type,options", "list", "interface")
	if err != nil {
		return nil, err
	}
	var table struct {
		Data [][3]any // a map column is ["map", [[key, value], ...]]
	}
	if err := json.Unmarshal([]byte(out), &table); err != nil {
		return nil, fmt.Errorf("node %s: list interface: %w", n.Name, err)
	}
	var tunnels []Tunnel
	for _, row := range table.Data {
		remote := remoteIP.FindStringSubmatch(fmt.Sprint(row[2]))
		if remote == nil {
			continue
		}
		t := Tunnel{Port: fmt.Sprint(row[0]), Type: fmt.Sprint(row[1]), Remote: remote[1]}
		stats, err := n.OFctl(ctx, "dump-ports", "br-int", t.Port)
		if err != nil {
			return nil, err
		}
		for direction, dst := range map[string]*int{"rx": &t.RxPackets, "tx": &t.TxPackets} {
			_, rest, _ := strings.Cut(stats, direction+" pkts=")
			digits, _, _ := strings.Cut(rest, ",")
			if *dst, err = strconv.Atoi(digits); err != nil {
				return nil, fmt.Errorf("node %s: dump-ports: %q: %w", n.Name, stats, err)
			}
		}
		tunnels = append(tunnels, t)
	}
	slices.SortFunc(tunnels, func(a, b Tunnel) int {
		return cmp.Or(cmp.Compare(a.Remote, b.Remote), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Port, b.Port))
	})
	return tunnels, nil
}

var remoteIP = regexp.MustCompile(`\[remote_ip ([^\]]+)\]`)

// Env is what a program needs in its environment to talk to this node's daemons.
func (n *Node) Env() []string {
	return []string{
		"OVS_RUNDIR=" + n.Dir, "OVS_LOGDIR=" + n.Dir, "OVS_DBDIR=" + n.Dir, "OVS_SYSCONFDIR=" + n.Dir,
		"OVN_RUNDIR=" + n.Dir, "OVN_LOGDIR=" + n.Dir, "OVN_DBDIR=" + n.Dir,
	}
}

func (n *Node) tool(ctx context.Context, argv ...string) (string, error) {
	return command{in: n.space, env: n.Env(), argv: argv}.run(ctx)
}

// accepts reports whether somebody listens at a Unix socket.
func accepts(path string) bool {
	c, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

func join(ips []netip.Addr) string {
	var s []string
	for _, ip := range ips {
		s = append(s, ip.String())
	}
	return strings.Join(s, ",")
}
